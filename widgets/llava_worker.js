// The engine behind messages: {id, method, argument} comes in; {id, event, value} and one {id, result} or {id, error} go out.

class LlavaWorker {
  constructor(send) {
    Object.assign(this, { send, cancelled: new Set(), turn: Promise.resolve() });
  }

  /** Questions are answered one after the other; `cancel` names one that waits or is being answered. */
  receive({ id, method, argument }) {
    if (method === "cancel") {
      this.cancelled.add(id);
      return;
    }
    this.turn = this.turn.then(() => this.answer(id, method, argument));
  }

  async answer(id, method, argument) {
    try {
      const result = this.cancelled.has(id) ? undefined : await this[method](argument, id);
      this.send({ id, result });
    } catch (error) {
      this.send({ id, error: { name: error.name, message: error.message } });
    }
    this.cancelled.delete(id);
  }

  async load(folders, id) {
    const onProgress = (fraction) => this.send({ id, event: "progress", value: fraction });
    this.engine = await LlavaEngine.load({ ...folders, onProgress });
    return this.engine.info;
  }

  see(rgba) {
    return this.engine.see(rgba);
  }

  codes(picture) {
    return this.engine.codes(picture);
  }

  activations(picture) {
    return this.engine.activations(picture);
  }

  forget(picture) {
    this.engine.forget(picture);
  }

  generate({ picture, prompt, intervention, maxNewTokens }, id) {
    const { cancelled } = this;
    const signal = { get aborted() { return cancelled.has(id); } }; // prettier-ignore
    const onToken = (token, text) => this.send({ id, event: "token", value: [token, text] });
    return this.engine.generate(picture, prompt, intervention, { maxNewTokens, onToken, signal });
  }
}

const worker = new LlavaWorker((message) => self.postMessage(message));
self.onmessage = ({ data }) => worker.receive(data);
