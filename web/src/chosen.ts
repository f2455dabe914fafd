/** Which part of the model is chosen, by its name in edges (`a2.h1`, `m0`): one value, many views. */
export class Chosen {
  private part: string | null = null;
  private readonly listeners = new Set<(part: string | null) => void>();

  get value(): string | null {
    return this.part;
  }

  /** Choose a part, or none; listeners hear of it when it is another one. */
  set(part: string | null): void {
    if (part === this.part) return;
    this.part = part;
    for (const listener of [...this.listeners]) listener(part);
  }

  /** Choose a part, or none where it is the one already. */
  toggle(part: string): void {
    this.set(part === this.part ? null : part);
  }

  /** Be told of every change from now on; gives back the way to stop. */
  listen(listener: (part: string | null) => void): () => void {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }
}
