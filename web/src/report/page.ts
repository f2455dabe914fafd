import { Chosen } from "../chosen.js";
import { markCommands } from "./commands.js";
import { markContents } from "./contents.js";
import { walkGrids } from "./grids.js";
import { Hints } from "./hints.js";
import { mountLive } from "./live.js";
import { chooseQueries } from "./looks.js";
import { chooseTheme } from "./theme.js";

/** Everything that a report's page can do, besides being read. */
export function start(): void {
  document.documentElement.classList.add("scripted");
  const hints = new Hints();
  chooseTheme();
  walkGrids(hints);
  chooseQueries();
  mountLive(new Chosen());
  markContents();
  markCommands();
}
