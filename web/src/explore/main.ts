/** The explorer's page: the same views as in reports and notebooks, around a server that answers. */
import { html } from "../dom.js";
import { chooseTheme } from "../report/theme.js";
import { Refused, ask, takeToken } from "./ask.js";
import { Bench } from "./bench.js";
import type { ModelData } from "./data.js";

async function start(): Promise<void> {
  takeToken();
  chooseTheme();
  const page = document.querySelector("main");
  if (!page) return;
  try {
    const model = await ask<ModelData>("model");
    const name = document.getElementById("model");
    if (name) name.textContent = `${model.name}, ${model.layers} layers of ${model.heads} heads`;
    document.title = `${model.name} · Cutaway`;
    const bench = new Bench(model, page);
    for (const [id, act] of [["keys", () => bench.help()], ["save", () => void bench.save()]] as const) {
      const button = document.getElementById(id);
      if (!button) continue;
      button.hidden = false;
      button.addEventListener("click", act);
    }
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    page.replaceChildren(html("p", { class: "trouble", role: "alert" }, error.message));
  }
}

void start();
