// Root speed and height over the last seconds.
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";

const kSpan = 10; // s
const kRedraw = 100; // ms

export class Chart {
  private readonly time: number[] = [];
  private readonly speed: number[] = [];
  private readonly height: number[] = [];
  private readonly plot: uPlot;
  private drawnAt = 0;
  private changed = false;

  constructor(private readonly container: HTMLElement) {
    const axis: uPlot.Axis = {
      stroke: "#93a1b1",
      font: "11px system-ui, sans-serif",
      grid: { stroke: "#ffffff12", width: 1 },
      ticks: { stroke: "#ffffff1f", width: 1, size: 4 },
      gap: 3,
    };
    this.plot = new uPlot({
      width: 260,
      height: 110,
      legend: { show: false },
      cursor: { show: false },
      padding: [6, 6, 0, 0],
      scales: {
        x: { time: false, range: (_plot, _min, max) => [Math.max(max, kSpan) - kSpan, Math.max(max, kSpan)] },
        y: { range: (_plot, _min, max) => [0, Math.max(1.5, max * 1.1)] },
      },
      axes: [
        { ...axis, size: 22, space: 50, values: (_plot, ticks) => ticks.map((t) => `${t} s`) },
        { ...axis, size: 28, space: 22 },
      ],
      series: [
        {},
        { label: "speed", stroke: "#5ad1c0", width: 2, points: { show: false } },
        { label: "height", stroke: "#f2b35d", width: 2, points: { show: false } },
      ],
    }, [[], [], []], container);
    new ResizeObserver(() => this.resize()).observe(container);
  }

  add(time: number, speed: number, height: number): void {
    if (this.time.length > 0 && time <= this.time[this.time.length - 1]!) {
      if (time === this.time[this.time.length - 1]) return;
      this.clear(); // another server's time
    }
    this.time.push(time);
    this.speed.push(speed);
    this.height.push(height);
    while (this.time[0]! < time - kSpan - 1) {
      this.time.shift();
      this.speed.shift();
      this.height.shift();
    }
    this.changed = true;
  }

  clear(): void {
    this.time.length = this.speed.length = this.height.length = 0;
    this.changed = true;
  }

  draw(now: number): void {
    if (!this.changed || now - this.drawnAt < kRedraw || this.container.clientWidth === 0) return;
    this.drawnAt = now;
    this.changed = false;
    this.plot.setData([this.time, this.speed, this.height]);
  }

  private resize(): void {
    const { clientWidth: width, clientHeight: height } = this.container;
    if (width > 0 && height > 0) this.plot.setSize({ width, height });
  }
}
