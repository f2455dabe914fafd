const MASTHEAD = 56;

/** What a mark of a drawing says, shown at once beside it, for pointer and keyboard alike. */
export class Hints {
  /** The cell that the arrow keys are on; its hint stays while the page scrolls. */
  private walked: SVGElement | null = null;
  private readonly ended = new AbortController();

  constructor(private readonly tip: HTMLElement) {
    const { signal } = this.ended;
    const follow = (): void => (this.walked ? this.show(this.walked) : this.hide());
    addEventListener("scroll", follow, { passive: true, capture: true, signal });
    addEventListener("keydown", (event) => event.key === "Escape" && this.leave(), { signal });
  }

  /** Show the hints of a drawing's marks. */
  watch(drawing: SVGSVGElement): void {
    drawing.addEventListener("pointerover", (event) => {
      const mark = event.target instanceof Element ? event.target.closest<SVGElement>("svg.cutaway *") : null;
      if (mark && said(mark)) this.show(mark);
      else this.hide();
    });
    drawing.addEventListener("pointerleave", () => this.hide());
  }

  /** Go to a cell: its hint stays until another one is gone to. */
  walk(mark: SVGElement): void {
    this.walked = mark;
    this.show(mark);
  }

  /** Leave the cells. */
  leave(): void {
    this.walked = null;
    this.hide();
  }

  /** Listen to the page no longer. */
  end(): void {
    this.ended.abort();
  }

  private show(mark: SVGElement): void {
    const { tip } = this;
    tip.textContent = said(mark);
    tip.hidden = false;
    const box = mark.getBoundingClientRect();
    const middle = box.left + box.width / 2 - tip.offsetWidth / 2;
    const above = box.top - tip.offsetHeight - 8;
    tip.style.left = `${Math.min(Math.max(8, middle), innerWidth - tip.offsetWidth - 8)}px`;
    tip.style.top = `${above > MASTHEAD ? above : box.bottom + 8}px`;
  }

  private hide(): void {
    this.tip.hidden = true;
  }
}

/** What a mark says; its title goes, or the browser would show it a second time. */
function said(mark: SVGElement): string {
  const title = mark.querySelector(":scope > title");
  if (title) {
    mark.dataset["said"] = title.textContent ?? "";
    mark.setAttribute("aria-label", mark.dataset["said"]);
    title.remove();
  }
  return mark.dataset["said"] ?? "";
}
