import { all } from "../dom.js";

/** Drawings wider than their place scroll; where nothing in them takes the keyboard, the place does. */
export function reachScrolled(): void {
  const plots = all(".plot").filter((plot) => !plot.querySelector("[tabindex]"));
  const mark = (): void => {
    for (const plot of plots) {
      if (plot.scrollWidth > plot.clientWidth) plot.tabIndex = 0;
      else plot.removeAttribute("tabindex");
    }
  };
  addEventListener("resize", mark);
  mark();
}
