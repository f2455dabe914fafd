/**
 * The one bundle. In a report it starts by itself; in a notebook anywidget imports it and calls
 * `render`; importing it anywhere else does nothing.
 */
import { start } from "./report/page.js";
import { render } from "./widget.js";

if (document.querySelector('meta[name="generator"][content="Cutaway"]')) start();

export default { render };
