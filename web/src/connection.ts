// The WebSocket: connects, and connects again, waiting longer each time, for as long as the page is open.
import { parseFrame, type ClientMessage, type Frame, type ServerMessage } from "./protocol";

export interface ConnectionEvents {
  open(): void;
  message(message: ServerMessage): void;
  frame(frame: Frame): void;
  // retryAt: performance.now() of the next try; everOpen: whether there was a connection before.
  lost(retryAt: number, everOpen: boolean): void;
}

const kFirstWait = 500; // ms
const kLongestWait = 5000;

export class Connection {
  private socket: WebSocket | null = null;
  private wait = kFirstWait;
  private retryTimer = 0;
  private everOpen = false;

  constructor(private readonly url: string, private readonly events: ConnectionEvents) {
    this.connect();
  }

  get connected(): boolean {
    return this.socket?.readyState === WebSocket.OPEN;
  }

  send(message: ClientMessage): boolean {
    if (!this.connected) return false;
    this.socket!.send(JSON.stringify(message));
    return true;
  }

  connect(): void {
    window.clearTimeout(this.retryTimer);
    if (this.socket) {
      this.socket.onclose = null;
      this.socket.close();
    }
    const socket = new WebSocket(this.url);
    this.socket = socket;
    socket.binaryType = "arraybuffer";
    socket.onopen = () => {
      this.wait = kFirstWait;
      this.everOpen = true;
      this.events.open();
    };
    socket.onmessage = (event: MessageEvent<string | ArrayBuffer>) => {
      if (typeof event.data === "string") {
        this.events.message(JSON.parse(event.data) as ServerMessage);
      } else {
        const frame = parseFrame(event.data);
        if (frame) this.events.frame(frame);
      }
    };
    socket.onclose = () => {
      this.retryTimer = window.setTimeout(() => this.connect(), this.wait);
      this.events.lost(performance.now() + this.wait, this.everOpen);
      this.wait = Math.min(2 * this.wait, kLongestWait);
    };
  }
}
