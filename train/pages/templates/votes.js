'use strict';
const data = JSON.parse(document.getElementById('data').textContent), $ = id => document.getElementById(id);
let state = {voter: '', order: [], votes: []}, since = 0;
const pairs = new Map(data.pairs.map(pair => [pair.id, pair]));
document.querySelectorAll('.question').forEach(each => { each.textContent = data.question; });

function shuffled(ids) {
  for (let i = ids.length - 1; i > 0; i--) {
    const j = Math.floor(Math.random() * (i + 1));
    [ids[i], ids[j]] = [ids[j], ids[i]];
  }
  return ids;
}
const kept = () => 'realrag-votes-' + data.page + '-' + state.voter;
function keep() { try { localStorage.setItem(kept(), JSON.stringify(state)); } catch (error) { /* the browser keeps nothing: vote in one go */ } }
function show() {
  const at = state.votes.length, over = at >= state.order.length;
  $('start').hidden = true; $('vote').hidden = over; $('end').hidden = !over;
  if (over) return;
  const pair = pairs.get(state.order[at]);
  $('left').src = pair.left; $('right').src = pair.right;
  $('real').parentElement.hidden = !pair.real;
  if (pair.real) $('real').src = pair.real;
  $('prompt').textContent = pair.prompt;
  $('count').textContent = (at + 1) + ' of ' + state.order.length;
  $('done').style.width = 100 * at / state.order.length + '%';
  since = Date.now();
}
function vote(choice) {
  state.votes.push({pair: state.order[state.votes.length], choice: choice, seconds: Math.round((Date.now() - since) / 100) / 10});
  keep(); show();
}
function undo() { state.votes.pop(); keep(); show(); }
function download() {
  const file = {format: data.format, version: data.version, page: data.page, voter: state.voter, votes: state.votes};
  const link = document.createElement('a');
  link.href = URL.createObjectURL(new Blob([JSON.stringify(file, null, 1)], {type: 'application/json'}));
  link.download = 'votes-' + data.page + '-' + state.voter.replace(/[^A-Za-z0-9]+/g, '_') + '.json';
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}
$('begin').addEventListener('click', () => {
  const name = $('voter').value.trim();
  if (!name) { $('voter').focus(); return; }
  state = {voter: name, order: shuffled(data.pairs.map(pair => pair.id)), votes: []};
  try { state = JSON.parse(localStorage.getItem(kept())) || state; } catch (error) { /* as above */ }
  show();
});
$('voter').addEventListener('keydown', event => { if (event.key === 'Enter') $('begin').click(); });
document.querySelectorAll('[data-choice]').forEach(each => each.addEventListener('click', () => { each.blur(); vote(each.dataset.choice); }));
$('save').addEventListener('click', download); $('final').addEventListener('click', download); $('undo').addEventListener('click', undo);
document.addEventListener('keydown', event => {
  if (event.repeat || event.ctrlKey || event.altKey || event.metaKey || !$('start').hidden) return;
  const choice = {ArrowLeft: 'left', ArrowRight: 'right', ArrowDown: 'tie'}[event.key];
  if (choice && !$('vote').hidden) { event.preventDefault(); vote(choice); }
  if (event.key === 'Backspace' && state.votes.length) { event.preventDefault(); undo(); }
});
