import { Chosen } from "../chosen.js";
import { enlivenAll } from "../drawing.js";
import { Hints } from "../hints.js";
import { markCommands } from "./commands.js";
import { markContents } from "./contents.js";
import { followChosen } from "./following.js";
import { mountLive } from "./live.js";
import { linkMentions, offerParts } from "./mentions.js";
import { reachScrolled } from "./scrolling.js";
import { chooseTheme } from "./theme.js";

/** Everything that a report's page can do, besides being read. */
export function start(): void {
  document.documentElement.classList.add("scripted");
  const chosen = new Chosen();
  chooseTheme();
  const tip = document.getElementById("tip");
  if (tip) enlivenAll(new Hints(tip), chosen);
  mountLive(chosen);
  followChosen(chosen);
  linkMentions(chosen);
  offerParts(chosen);
  reachScrolled();
  markContents();
  markCommands();
}
