import { all } from "../dom.js";

/** Contents: mark the section being read. */
export function markContents(): void {
  const links = new Map(all<HTMLAnchorElement>(".contents a").map((link) => [link.hash.slice(1), link]));
  const places = [...links.keys()].map((id) => document.getElementById(id)).filter((place) => place !== null);
  const mark = (): void => {
    const passed = places.filter((place) => place.getBoundingClientRect().top < innerHeight / 3);
    const atEnd = innerHeight + scrollY >= document.documentElement.scrollHeight - 4;
    const current = atEnd ? places.at(-1) : (passed.at(-1) ?? places[0]);
    for (const [id, link] of links) {
      if (id === current?.id) link.setAttribute("aria-current", "true");
      else link.removeAttribute("aria-current");
    }
  };
  addEventListener("scroll", mark, { passive: true });
  mark();
}
