// The list of clips to command: grouped by their first tag, searched by name and tag.
import type { ClipData } from "./protocol";

const kSearchFrom = 10; // clips: with fewer there is nothing to search

export class ClipList {
  private clips: ClipData[] = [];
  private buttons = new Map<string, HTMLButtonElement>();
  private active: string | null = null;

  constructor(
    private readonly list: HTMLElement,
    private readonly searchRow: HTMLElement,
    private readonly search: HTMLInputElement,
    private readonly count: HTMLElement,
    private readonly command: (clip: string) => void,
  ) {
    search.addEventListener("input", () => this.filter());
    search.addEventListener("keydown", (event) => {
      if (event.key === "Escape") {
        search.value = "";
        this.filter();
        search.blur();
      } else if (event.key === "Enter") {
        const first = this.visible()[0];
        if (first) this.command(first.dataset.clip!);
      }
    });
  }

  set(clips: ClipData[]): void {
    this.buttons.clear();
    this.list.replaceChildren();
    // in the order of the groups' first clips; numbers 1 to 9 follow what is seen from top to bottom
    const groups = new Map<string, ClipData[]>();
    for (const clip of clips) {
      const group = clip.tags[0] ?? "other";
      groups.set(group, [...(groups.get(group) ?? []), clip]);
    }
    this.clips = [...groups.values()].flat();
    let number = 0;
    for (const [tag, members] of groups) {
      const section = document.createElement("section");
      const title = document.createElement("h3");
      title.textContent = tag;
      const row = document.createElement("div");
      row.className = "group";
      for (const clip of members) row.append(this.makeButton(clip, ++number));
      section.append(title, row);
      this.list.append(section);
    }
    if (clips.length === 0) {
      const empty = document.createElement("p");
      empty.className = "empty";
      empty.textContent = "This policy knows no clips.";
      this.list.append(empty);
    }
    this.count.textContent = String(clips.length);
    this.searchRow.hidden = clips.length < kSearchFrom;
    this.filter();
    this.setActive(this.active);
  }

  setActive(name: string | null): void {
    this.active = name;
    for (const [clip, button] of this.buttons) button.setAttribute("aria-pressed", String(clip === name));
  }

  // The clip under a number key, from 1.
  nth(number: number): string | undefined {
    return this.clips[number - 1]?.name;
  }

  focusSearch(): void {
    if (!this.searchRow.hidden) this.search.focus();
  }

  private makeButton(clip: ClipData, number: number): HTMLButtonElement {
    const button = document.createElement("button");
    button.className = "clip";
    button.dataset.clip = clip.name;
    button.dataset.words = [clip.name, ...clip.tags].join(" ").toLowerCase();
    button.setAttribute("aria-pressed", "false");
    button.title = `${clip.name}, ${clip.duration.toFixed(1)} s${clip.tags.length ? ` (${clip.tags.join(", ")})` : ""}`;
    const name = document.createElement("span");
    name.className = "label";
    name.textContent = clip.name.replaceAll("_", " ");
    button.append(name);
    const duration = document.createElement("span");
    duration.className = "duration";
    duration.textContent = `${clip.duration.toFixed(1)} s`;
    button.append(duration);
    if (number <= 9) {
      const key = document.createElement("kbd");
      key.textContent = String(number);
      button.append(key);
      button.setAttribute("aria-keyshortcuts", String(number));
    }
    button.addEventListener("click", () => this.command(clip.name));
    this.buttons.set(clip.name, button);
    return button;
  }

  private visible(): HTMLButtonElement[] {
    return [...this.buttons.values()].filter((button) => !button.hidden);
  }

  private filter(): void {
    const words = this.search.value.toLowerCase().replaceAll("_", " ").split(/\s+/).filter(Boolean);
    for (const button of this.buttons.values()) {
      const text = button.dataset.words!.replaceAll("_", " ");
      button.hidden = !words.every((word) => text.includes(word));
    }
    for (const section of this.list.querySelectorAll("section"))
      section.hidden = !section.querySelector("button:not([hidden])");
    const shown = this.visible().length;
    this.count.textContent = shown === this.clips.length ? String(shown) : `${shown} of ${this.clips.length}`;
  }
}
