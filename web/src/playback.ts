// From frames at control rate to a pose at any moment: plays about one frame behind the newest, so that there are two
// poses to interpolate between. The playhead runs on the display's clock and is drawn gently towards where it should be:
// frames that arrive unevenly do not make the motion uneven.
import { Quaternion } from "three";
import type { Frame } from "./protocol";

const kKept = 12; // frames

export class Playback {
  private frames: Frame[] = [];
  private playhead = 0; // s simulated
  private readonly pose: Float32Array;
  private shown = NaN; // playhead of `pose`
  private readonly qa = new Quaternion();
  private readonly qb = new Quaternion();

  constructor(bodies: number, private readonly step: number) {
    this.pose = new Float32Array(7 * bodies);
  }

  get newest(): Frame | undefined {
    return this.frames[this.frames.length - 1];
  }

  push(frame: Frame): void {
    if (frame.poses.length !== this.pose.length) return;
    const last = this.newest;
    // a jump of the state, or another server's time
    if (!last || frame.epoch !== last.epoch || frame.time < last.time) {
      this.frames = [frame];
      this.playhead = frame.time;
      this.shown = NaN;
      return;
    }
    if (frame.time === last.time) this.frames.pop();
    this.frames.push(frame);
    if (this.frames.length > kKept) this.frames.shift();
  }

  // The pose (bodies x 7) after another `elapsed` seconds on the display; null if it is still the one before.
  advance(elapsed: number): Float32Array | null {
    const last = this.newest;
    if (!last) return null;
    const wanted = last.time - 1.2 * this.step;
    const error = wanted - this.playhead;
    if (error > 6 * this.step) this.playhead = wanted;
    else this.playhead += elapsed * Math.min(Math.max(1 + 4 * error, 0.5), 1.5);
    this.playhead = Math.min(this.playhead, last.time);
    if (this.playhead === this.shown) return null;
    this.shown = this.playhead;

    // the two frames around the playhead
    let b = this.frames.length - 1;
    while (b > 0 && this.frames[b - 1]!.time >= this.playhead) --b;
    const after = this.frames[b]!;
    const before = this.frames[Math.max(b - 1, 0)]!;
    const span = after.time - before.time;
    this.interpolate(before.poses, after.poses, span > 0 ? Math.max((this.playhead - before.time) / span, 0) : 1);
    return this.pose;
  }

  private interpolate(a: Float32Array, b: Float32Array, share: number): void {
    for (let i = 0; i < this.pose.length; i += 7) {
      for (let k = i; k < i + 3; ++k) this.pose[k] = a[k]! + share * (b[k]! - a[k]!);
      this.qa.fromArray(a, i + 3).slerp(this.qb.fromArray(b, i + 3), share).toArray(this.pose, i + 3);
    }
  }
}
