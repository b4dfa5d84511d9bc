// The table of items, one item opened, and what plots tell. Used by reports, whose items stand in the page, and by the local
// page, which asks its server: `itemTable` takes what reads them as an argument. Texts of data sets and
// endpoints are put into the page as text, never as markup.

(() => {
  const own = globalThis.forcedChoice;
  const MINUS = "\u2212";

  const element = (name, properties = {}, ...children) => {
    const made = Object.assign(document.createElement(name), properties);
    made.append(...children);
    return made;
  };
  const letter = (at) => (at < 26 ? String.fromCharCode(65 + at) : String(at + 1));
  const number = (value, digits) => value.toFixed(digits).replace("-", MINUS);
  const signed = (value, digits) => (value > 0 ? "+" : "") + number(value, digits);
  const count = (value) => value.toLocaleString("en");

  // Of one item: its log-probability sums of one endpoint as shares of all choices.
  const shares = (sums) => {
    const highest = Math.max(...sums);
    const raised = sums.map((each) => Math.exp(each - highest));
    const whole = raised.reduce((a, b) => a + b, 0);
    return raised.map((each) => each / whole);
  };

  // One item: {task, subject, shots, index, id, gold: [..], choices: n,
  //   endpoints: [{label, tokenizer, sums, value, prediction, margin, unscored, flip}], documents: [..]}
  // A document: {tokenizer, contexts, choices, tokens, logprobs: {label: [[..]]}}
  function itemDetail(item) {
    const box = element("div", { className: "item" });
    const place = [item.task, item.subject, `item ${item.index}`, item.id && `id ${item.id}`, `${item.shots} ${item.shots === 1 ? "shot" : "shots"}`];
    box.append(element("p", { className: "facts" }, place.filter(Boolean).join(" · ")));
    const texts = item.documents.find((each) => each.contexts.length);
    if (texts) box.append(element("h4", {}, "Prompt"), ...texts.contexts.map(prompt));
    else box.append(element("p", { className: "note" }, "Its prompt and choices are not in this page."));
    box.append(element("h4", {}, "Choices: sums of log-probabilities, nats, and their shares"), choices(item, texts));
    for (const document of item.documents) box.append(...spoken(item, document));
    return box;
  }

  // The last paragraph is the question; what stands before it are shots and description.
  function prompt(text) {
    const cut = text.lastIndexOf("\n\n", text.trimEnd().length - 1) + 1;
    const shown = element("pre", { tabIndex: 0 }, text.slice(0, cut), element("mark", {}, text.slice(cut)));
    requestAnimationFrame(() => { shown.scrollTop = shown.scrollHeight; });
    return shown;
  }

  function choices(item, texts) {
    const ends = item.endpoints.filter((each) => each.unscored !== null);
    const head = element("tr", {}, element("th", { scope: "col" }, "choice"), element("th", { scope: "col" }, "text"));
    for (const each of ends) head.append(element("th", { scope: "col", className: "number" }, each.label));
    const body = element("tbody");
    const parts = ends.map((each) => (each.sums.length ? shares(each.sums) : []));
    for (let at = 0; at < item.choices; at += 1) {
      const right = item.gold.includes(at);
      const row = element("tr", { className: right ? "right" : "" });
      row.append(element("th", { scope: "row" }, letter(at) + (right ? " ✓" : "")));
      row.append(element("td", { className: "text" }, texts ? texts.choices[at] : ""));
      ends.forEach((each, position) => {
        const chosen = each.prediction === at;
        const cell = element("td", { className: `number${chosen ? " chosen" : ""}` });
        if (each.sums.length) {
          const share = ` ${(100 * parts[position][at]).toFixed(1)} %`;
          cell.append((chosen ? "▸ " : "") + number(each.sums[at], 3), element("span", { className: "share" }, share));
        } else cell.append(at ? "" : `unscored: ${each.unscored}`);
        row.append(cell);
      });
      body.append(row);
    }
    const table = element("table", {}, element("thead", {}, head), body);
    return element("div", { className: "scroll", tabIndex: 0 }, table);
  }

  function spoken(item, document) {
    const found = [];
    for (const [label, logprobs] of Object.entries(document.logprobs)) {
      found.push(element("h4", {}, `Tokens and their log-probabilities: ${label}`));
      logprobs.forEach((values, at) => {
        const right = item.gold.includes(at) ? " right" : "";
        const line = element("div", { className: "tokens" });
        line.append(element("span", { className: `which${right}` }, letter(at)));
        values.forEach((value, position) => line.append(token(document.tokens[at][position], value)));
        found.push(line);
      });
    }
    return found;
  }

  function token(text, value) {
    // What cannot be seen gets a sign; a deeper ground means less likely.
    const shown = text.replace(/ /g, "·").replace(/\n/g, "↵").replace(/\t/g, "⇥");
    const box = element("span", { className: "token" }, element("code", {}, shown), element("small", {}, number(value, 2)));
    box.style.setProperty("--weight", String(Math.min(1, -value / 10)));
    return box;
  }

  const FLIPPED = { "wrong to right": "became right", "right to wrong": "became wrong", "wrong to other wrong": "other choice" };

  // What the cell of an endpoint shows: whether it is right, what it chose, and by how much right is ahead.
  function verdict(end) {
    const cell = document.createDocumentFragment();
    if (end.unscored === null || end.unscored.startsWith("not asked")) return element("span", { className: "faint" }, "not asked");
    if (end.unscored) return element("span", { className: "mark none" }, "– unscored");
    const right = end.value >= 0.5;
    const chosen = end.prediction >= 0 ? letter(end.prediction) : end.value === null ? "" : number(end.value, 2);
    const said = element("span", { className: `mark ${right ? "right" : "wrong"}` }, `${right ? "✓" : "✗"} ${chosen}`);
    said.title = right ? "right" : "wrong";
    said.append(element("span", { className: "unseen" }, right ? " right" : " wrong"));
    cell.append(said, " ");
    if (end.margin !== null) cell.append(element("span", { className: "ahead" }, signed(end.margin, 2)));
    if (end.flip) cell.append(element("span", { className: "flip" }, FLIPPED[end.flip]));
    return cell;
  }

  // Words of a plot's mark, under the pointer.
  function tips() {
    const tip = document.getElementById("tip");
    document.addEventListener("pointermove", (event) => {
      const mark = event.target instanceof Element ? event.target.closest(".picture .role-mark [aria-label]") : null;
      const said = mark?.getAttribute("aria-label") ?? "";
      tip.hidden = !said;
      if (!said) return;
      tip.textContent = said;
      const left = Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 8);
      const below = event.clientY + 18 + tip.offsetHeight < innerHeight;
      tip.style.left = `${Math.max(8, left)}px`;
      tip.style.top = `${below ? event.clientY + 18 : event.clientY - tip.offsetHeight - 12}px`;
    });
  }

  Object.assign(own, { element, letter, number, signed, count, itemDetail, verdict, tips });
})();
