"use strict";
(() => {
  const root = document.documentElement;
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  root.classList.add("scripted");

  // Theme: the system's until the button is pressed.
  const button = document.getElementById("theme");
  const system = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);
  const tell = () => {
    button.textContent = isDark() ? "Light theme" : "Dark theme";
    button.setAttribute("aria-pressed", String(isDark()));
  };
  button.hidden = false;
  button.setAttribute("aria-label", "Dark theme");
  button.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    tell();
  });
  system.addEventListener("change", tell);
  tell();

  // Hints: a mark's <title> shown at once beside it, for pointer and keyboard alike.
  const tip = document.getElementById("tip");
  const said = (mark) => {
    const title = mark.querySelector("title");
    if (title) {
      mark.dataset.said = title.textContent;
      mark.setAttribute("aria-label", title.textContent);
      title.remove(); // or the browser shows it a second time
    }
    return mark.dataset.said;
  };
  const show = (mark) => {
    tip.textContent = said(mark);
    tip.hidden = false;
    const box = mark.getBoundingClientRect();
    const left = Math.min(Math.max(8, box.left + box.width / 2 - tip.offsetWidth / 2), innerWidth - tip.offsetWidth - 8);
    const above = box.top - tip.offsetHeight - 8;
    tip.style.left = `${left}px`;
    tip.style.top = `${above > 56 ? above : box.bottom + 8}px`;
  };
  let walked = null; // the cell that the arrow keys are on; its hint stays while the page scrolls
  const hide = () => { tip.hidden = true; };
  for (const svg of all("svg.cutaway")) {
    svg.addEventListener("pointerover", (event) => {
      const mark = event.target.closest("svg.cutaway *");
      if (mark && (mark.dataset.said || mark.querySelector("title"))) show(mark);
      else hide();
    });
    svg.addEventListener("pointerleave", hide);
  }
  addEventListener("scroll", () => { if (walked) show(walked); else hide(); }, { passive: true, capture: true });
  addEventListener("keydown", (event) => { if (event.key === "Escape") { walked = null; hide(); } });

  // Grids: one tab stop each, arrow keys walk the cells.
  const steps = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
  for (const svg of all("svg[data-grid]")) {
    const cells = new Map(all("[data-r]", svg).map((cell) => [`${cell.dataset.r},${cell.dataset.c}`, cell]));
    let at = null;
    const go = (row, column) => {
      const next = cells.get(`${row},${column}`);
      if (!next) return;
      if (at) at.classList.remove("at");
      at = next;
      at.classList.add("at");
      walked = at;
      at.scrollIntoView({ block: "nearest", inline: "nearest" });
      show(at);
    };
    svg.setAttribute("tabindex", "0");
    svg.setAttribute("aria-keyshortcuts", Object.keys(steps).join(" "));
    svg.addEventListener("focus", () => { if (svg.matches(":focus-visible")) go(0, 0); });
    svg.addEventListener("blur", () => { if (at) at.classList.remove("at"); at = walked = null; hide(); });
    svg.addEventListener("keydown", (event) => {
      const step = steps[event.key];
      if (!step) return;
      event.preventDefault();
      if (at) go(+at.dataset.r + step[0], +at.dataset.c + step[1]);
      else go(0, 0);
    });
  }

  // Attention over the text: the pointer, the arrow keys or a row of the map choose the query.
  for (const box of all(".looks")) {
    const tokens = all(".look", box);
    const shades = JSON.parse(box.dataset.shades);
    const weights = JSON.parse(box.dataset.weights);
    const choose = (query) => {
      tokens.forEach((token, index) => {
        const apart = token.classList.contains("apart") ? " apart" : "";
        token.className = `look${apart} a${index <= query ? shades[query][index] : 0}`;
        token.classList.toggle("after", index > query);
        token.classList.toggle("chosen", index === query);
        token.setAttribute("aria-selected", String(index === query));
        token.tabIndex = index === query ? 0 : -1;
        token.title = index <= query ? `attention ${weights[query][index].toFixed(2)}` : "comes later";
      });
    };
    tokens.forEach((token, index) => {
      token.addEventListener("pointerenter", () => choose(index));
      token.addEventListener("focus", () => choose(index));
      token.addEventListener("keydown", (event) => {
        const last = tokens.length - 1;
        const to = { ArrowLeft: index - 1, ArrowUp: index - 1, ArrowRight: index + 1, ArrowDown: index + 1, Home: 0, End: last }[event.key];
        if (to === undefined) return;
        event.preventDefault();
        tokens[Math.min(Math.max(to, 0), last)].focus();
      });
    });
    const map = box.parentElement.querySelector("svg[data-grid=attention]");
    map.addEventListener("pointerover", (event) => {
      if (event.target.dataset.r !== undefined) choose(+event.target.dataset.r);
    });
    choose(+box.dataset.query);
  }

  // Contents: mark the section being read.
  const links = new Map(all(".contents a").map((link) => [link.hash.slice(1), link]));
  const mark = () => {
    const places = [...links.keys()].map((id) => document.getElementById(id));
    const passed = places.filter((place) => place.getBoundingClientRect().top < innerHeight / 3);
    const atEnd = innerHeight + scrollY >= root.scrollHeight - 4;
    const current = atEnd ? places.at(-1) : passed.at(-1) ?? places[0];
    for (const [id, link] of links) {
      if (id === current.id) link.setAttribute("aria-current", "true");
      else link.removeAttribute("aria-current");
    }
  };
  addEventListener("scroll", mark, { passive: true });
  mark();

  // Commands: copy, where the browser lets a page.
  if (navigator.clipboard) {
    for (const copy of all(".copy")) {
      copy.hidden = false;
      copy.addEventListener("click", async () => {
        await navigator.clipboard.writeText(copy.previousElementSibling.textContent);
        copy.textContent = "Copied";
        setTimeout(() => { copy.textContent = "Copy"; }, 1500);
      });
    }
  }
})();
