// The page's side of a widget's line to Python (kernel_line.py): is there a kernel, and does it still answer?

const FIRST_PONG = 1500; // ms after which a page without an answer takes it that there is no kernel; a late one still counts
const PING_EVERY = 4000; // ms
const PONG_WITHIN = 6000; // ms of silence, with a ping on its way, after which a kernel that was there counts as lost

/** Whether this page is the rendered book, which has no kernel: it need not wait for one. */
const inBook = () => document.querySelector('script[src*="_static/"]') !== null;

/** `state`: unknown, attached, absent (never there) or lost (was there). A subclass hears messages, and of a loss. */
class KernelLine {
  constructor(model, changed) {
    Object.assign(this, { model, changed, state: inBook() ? "absent" : "unknown", heard: 0, asked: 0 });
    this.receive = this.receive.bind(this);
    model.on("msg:custom", this.receive);
    this.send({ kind: "ping" });
    this.first = setTimeout(() => this.state === "unknown" && this.become("absent"), FIRST_PONG);
    this.watch = setInterval(() => this.check(), PING_EVERY);
  }

  hear() {}

  lost() {}

  become(state) {
    if (this.state === state) return;
    this.state = state;
    if (state === "lost") this.lost();
    this.changed();
  }

  /** Only a kernel that was heard once is asked again: a page without one stays quiet. */
  check() {
    if (this.state !== "attached" && this.state !== "lost") return;
    if (this.asked > this.heard && performance.now() - this.asked > PONG_WITHIN) this.become("lost");
    if (this.asked <= this.heard) this.asked = performance.now();
    this.send({ kind: "ping" });
  }

  send(message, buffers) {
    try {
      this.model.send(message, undefined, buffers);
    } catch {
      this.become(this.state === "unknown" ? "absent" : "lost");
    }
  }

  receive(message) {
    this.heard = performance.now();
    this.become("attached");
    this.hear(message);
  }

  close() {
    clearTimeout(this.first);
    clearInterval(this.watch);
    this.model.off("msg:custom", this.receive);
  }
}
