function conceptMap(root) {
  if (root.dataset.ready) return; // the same map may stand on a page twice, and each has brought this script
  root.dataset.ready = 'yes';
  const { points, concepts, columns, size } = JSON.parse(root.querySelector('script[type="application/json"]').textContent);
  const drawing = root.querySelector('svg');
  const circles = [...drawing.querySelectorAll('circle')];
  const card = root.querySelector('.cm-card');
  const found = root.querySelector('.cm-found');
  const order = points.map((_, i) => i).sort((a, b) => points[a].concept - points[b].concept || points[a].at[0] - points[b].at[0]);
  let shown = -1;
  let held = false; // chosen by a click: the pointer may leave without losing it

  function element(tag, text, className = '') {
    const node = document.createElement(tag);
    node.textContent = text;
    node.className = className;
    return node;
  }

  function picture(position) {
    const tile = element('span', '', 'cm-picture');
    tile.style.backgroundPosition = `${-size * (position % columns)}px ${-size * Math.floor(position / columns)}px`;
    tile.style.width = tile.style.height = `${size}px`;
    return tile;
  }

  function show(i) {
    if (i === shown) return;
    circles[shown]?.removeAttribute('data-shown');
    shown = i;
    const point = points[i];
    circles[i].dataset.shown = 'yes';
    circles[i].parentNode.append(circles[i]); // on top of the others
    const pictures = element('div', '');
    pictures.append(...point.pictures.map(picture));
    pictures.setAttribute('role', 'img');
    pictures.setAttribute('aria-label', `the ${point.pictures.length} pictures on which ${point.title} is most active`);
    const alike = points.filter((other) => other.concept === point.concept).length;
    card.replaceChildren(
      element('small', 'steers toward'),
      element('h4', concepts[point.concept]),
      element('p', `${point.title} · ${alike} feature${alike === 1 ? '' : 's'} of this concept`),
      element('small', point.pictures.length ? 'most active on' : 'active on none of the pictures'),
      pictures,
      element('p', point.note),
    );
  }

  function nearest(event) { // the visible feature that is nearest to the pointer, if it is near
    const matrix = drawing.getScreenCTM();
    let best = -1;
    let least = 18 ** 2; // pixels
    points.forEach(({ at: [x, y] }, i) => {
      if (circles[i].dataset.off) return;
      const distance = (matrix.a * x + matrix.e - event.clientX) ** 2 + (matrix.d * y + matrix.f - event.clientY) ** 2;
      if (distance < least) [best, least] = [i, distance];
    });
    return best;
  }

  function find(text) {
    const words = text.trim().toLowerCase().split(/\s+/).filter(Boolean);
    let count = 0;
    points.forEach((point, i) => {
      const told = `${concepts[point.concept]} ${point.title}`.toLowerCase();
      const on = words.every((word) => told.includes(word));
      count += on;
      if (on) delete circles[i].dataset.off;
      else circles[i].dataset.off = 'yes';
    });
    found.textContent = words.length ? `${count} feature${count === 1 ? '' : 's'}` : '';
  }

  drawing.addEventListener('pointermove', (event) => {
    const i = nearest(event);
    if (i >= 0 && !held) show(i);
  });
  drawing.addEventListener('click', (event) => {
    const i = nearest(event);
    held = i >= 0 && !(held && i === shown);
    if (i >= 0) show(i);
  });
  drawing.addEventListener('keydown', (event) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const visible = order.filter((i) => !circles[i].dataset.off);
    if (visible.length) show(visible.at((visible.indexOf(shown) + step) % visible.length));
  });
  root.querySelector('input').addEventListener('input', (event) => find(event.target.value));
  show(order[0]);
}
