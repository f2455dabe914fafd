/**
 * Asking the server. The token comes behind the `#` of the address that was printed; it is taken out
 * of the address at once, and kept for this tab alone.
 */

const HEADER = "X-Cutaway-Token";
const KEPT = "cutaway-token";
/** What stands behind the `#`, where it is a token and not a place of the page. */
const TOKEN = /^#([\w-]{32})$/;
/** Names this page to the server, which works on the newest question of each page. */
const PAGE = crypto.randomUUID();

/** What the server cannot do, in its own sentence. */
export class Refused extends Error {}

/** Take the token out of the address; a new one, pasted into this tab, starts the page again. */
export function takeToken(): void {
  const given = TOKEN.exec(location.hash)?.[1];
  if (given) {
    sessionStorage.setItem(KEPT, given);
    history.replaceState(null, "", location.pathname);
  }
  addEventListener("hashchange", () => {
    if (TOKEN.test(location.hash)) location.reload();
  });
}

/** Ask, with JSON where there is something to say. `signal` takes the question back. */
export async function ask<Found>(path: string, said?: object, signal?: AbortSignal): Promise<Found> {
  const headers = { [HEADER]: sessionStorage.getItem(KEPT) ?? "", "Content-Type": "application/json" };
  const body = said ? JSON.stringify({ page: PAGE, ...said }) : null;
  let answered: Response;
  try {
    answered = await fetch(`/api/${path}`, { method: said ? "POST" : "GET", headers, body, signal: signal ?? null });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Refused("The server does not answer; start it again with cutaway explore.");
  }
  const found: unknown = await answered.json().catch(() => ({ error: "The server failed; its terminal says how." }));
  if (!answered.ok) throw new Refused((found as { error: string }).error);
  return found as Found;
}
