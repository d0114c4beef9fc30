// What the server sends and takes; the other side is src/play/messages.h.

export interface ShapeData {
  kind: "sphere" | "capsule" | "box" | "cylinder";
  pos: [number, number, number];
  rot: [number, number, number, number]; // x y z w
  size: [number, number, number]; // radius | radius, half length | half extents
  rgba: [number, number, number, number];
}

export interface BodyData {
  name: string;
  parent: number;
  shapes: ShapeData[];
}

export interface ClipData {
  name: string;
  tags: string[];
  duration: number; // s
}

export interface SceneMessage {
  type: "scene";
  version: number;
  character: string;
  stand_height: number; // m
  control_rate: number; // Hz
  bodies: BodyData[];
  clips: ClipData[];
  machines: string[];
  target: { kind: ShapeData["kind"]; size: [number, number, number] }; // the pillar
}

export interface StatusMessage {
  type: "status";
  clip: string | null;
  machine: string | null; // that directs it
  state: string; // of the machine
  paused: boolean;
  auto_reset: boolean;
  fallen: boolean;
  falls: number;
  resets: number;
  diverged: number;
}

export type ServerMessage =
  | SceneMessage
  | StatusMessage
  | { type: "error"; message: string }
  | { type: "pong"; t: number };

export type ClientMessage =
  | { type: "command"; clip: string }
  | { type: "machine"; machine: string }
  | { type: "pause"; paused: boolean }
  | { type: "step" }
  | { type: "reset" }
  | { type: "push" }
  | { type: "auto_reset"; on: boolean }
  | { type: "ping"; t: number };

// One pose.
export interface Frame {
  tick: number;
  epoch: number; // poses of two epochs do not interpolate
  time: number; // s simulated
  speed: number; // m/s
  height: number; // m
  poses: Float32Array; // (bodies x 7) position, rotation x y z w
  forces: Float32Array; // (bodies) N
  target: Target | null;
}

export interface Target {
  kind: "pillar" | "place";
  pose: Float32Array; // position, rotation x y z w
}

const kMagic = 0x4d4c4143; // "CALM"
const kVersion = 2;
const kHeaderSize = 40;

// Null for what is no frame of our version.
export function parseFrame(buffer: ArrayBuffer): Frame | null {
  if (buffer.byteLength < kHeaderSize) return null;
  const view = new DataView(buffer);
  const bodies = view.getUint16(6, true);
  if (view.getUint32(0, true) !== kMagic || view.getUint16(4, true) !== kVersion) return null;
  const flags = view.getUint32(16, true);
  const kind = flags & 4 ? "pillar" : flags & 8 ? "place" : null;
  const end = kHeaderSize + bodies * 32;
  if (buffer.byteLength !== end + (kind ? 28 : 0)) return null;
  return {
    tick: view.getUint32(8, true),
    epoch: view.getUint32(12, true),
    speed: view.getFloat32(20, true),
    time: view.getFloat64(24, true),
    height: view.getFloat32(32, true),
    poses: new Float32Array(buffer, kHeaderSize, bodies * 7),
    forces: new Float32Array(buffer, kHeaderSize + bodies * 28, bodies),
    target: kind && { kind, pose: new Float32Array(buffer, end, 7) },
  };
}
