function taxonomyTree(root) {
  if (root.dataset.ready) return; // the same tree may stand on a page twice, and each has brought this script
  root.dataset.ready = 'yes';
  const tree = root.querySelector('.tx-tree');
  const card = root.querySelector('.tx-card');
  const found = root.querySelector('.tx-found');
  const leaves = [...tree.querySelectorAll('.tx-leaf')];
  const branches = [...tree.querySelectorAll('details')];
  const atFirst = new Set(branches.filter((branch) => branch.open));

  for (const branch of branches) { // faces of what is inside, while it is closed
    const inside = [...branch.querySelectorAll('.tx-leaf > img')];
    const step = Math.max(1, Math.floor(inside.length / 7));
    const faces = branch.querySelector('.tx-faces');
    inside.filter((_, i) => i % step === 0).slice(0, 7).forEach((image) => {
      const face = image.cloneNode();
      face.alt = '';
      faces.append(face);
    });
  }

  function show(leaf) {
    leaves.forEach((other) => other.setAttribute('aria-pressed', String(other === leaf)));
    card.replaceChildren(leaf.querySelector('template').content.cloneNode(true));
  }

  function find(text) {
    const words = text.trim().toLowerCase().split(/\s+/).filter(Boolean);
    let count = 0;
    for (const leaf of leaves) {
      leaf.hidden = !words.every((word) => leaf.dataset.words.includes(word));
      count += !leaf.hidden;
    }
    for (const branch of branches) {
      branch.hidden = !branch.querySelector('.tx-leaf:not([hidden])');
      branch.open = words.length ? true : atFirst.has(branch);
    }
    found.textContent = words.length ? `${count} species` : '';
  }

  function move(event) { // arrow keys: up and down through what is visible, left and right close and open
    const here = event.target.closest('summary, .tx-leaf');
    if (!here || !event.key.startsWith('Arrow')) return;
    event.preventDefault();
    const stops = [...tree.querySelectorAll('summary, .tx-leaf')].filter((stop) => stop.offsetParent);
    const at = stops.indexOf(here);
    const branch = here.closest('details');
    if (here.matches('summary') && event.key === 'ArrowRight' && !branch.open) branch.open = true;
    else if (here.matches('summary') && event.key === 'ArrowLeft' && branch.open) branch.open = false;
    else if (event.key === 'ArrowLeft' && here.matches('summary')) (branch.parentElement.closest('details') || branch).querySelector('summary').focus();
    else stops[at + (event.key === 'ArrowUp' || event.key === 'ArrowLeft' ? -1 : 1)]?.focus();
  }

  tree.addEventListener('click', (event) => {
    const leaf = event.target.closest('.tx-leaf');
    if (leaf) show(leaf);
  });
  tree.addEventListener('keydown', move);
  root.querySelector('input').addEventListener('input', (event) => find(event.target.value));
  root.querySelectorAll('[data-do]').forEach((button) => button.addEventListener('click', () => {
    branches.forEach((branch) => { branch.open = button.dataset.do === 'open'; });
  }));
  show(leaves[0]);
}
