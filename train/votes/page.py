"""The page people vote on: one HTML file that loads nothing, sends nothing, and hands the votes over as a download."""

from __future__ import annotations

import base64
import hashlib
import html
import json
from collections.abc import Sequence
from pathlib import Path

from realrag.photos.decode import decode, encode_jpeg, read_bytes, shrink

FORMAT, VERSION = "realrag-votes", 1
STYLE = """*{box-sizing:border-box}body{font:17px/1.45 system-ui,sans-serif;margin:0 auto;max-width:1300px;padding:1em;color:#222;background:#f7f7f5}
h1{font-size:1.15em;margin:.2em 0}#prompt{font-size:1.5em;margin:.4em 0}.row{display:flex;gap:14px;justify-content:center;align-items:flex-start}
figure{margin:0;flex:1 1 0;max-width:512px;text-align:center}figure.real{flex:0 1 230px;color:#666;font-size:.85em}
img{width:100%;border-radius:6px;background:#ddd;display:block}#left,#right{max-height:62vh;object-fit:contain}button{font:inherit;padding:.55em 1.1em;margin:.7em .2em;border:1px solid #999;border-radius:8px;background:#fff;cursor:pointer}
button:hover,button:focus-visible{background:#e8eefc;border-color:#36c}.keys,#count{color:#666;font-size:.85em}.bar{height:6px;background:#ddd;border-radius:3px}
.bar div{height:6px;background:#36c;border-radius:3px;width:0}[hidden]{display:none!important}input{font:inherit;padding:.45em}"""

BODY = """<section id="start"><h1 class="question"></h1><p>You see two pictures painted from the same words. Say which one answers the
question better; say "tie" where neither does. Nothing leaves this file: at the end, download your votes and send them back.</p>
<p><label>Your name or initials: <input id="voter" autocomplete="off" maxlength="60"></label> <button id="begin">Begin</button></p></section>
<section id="vote" hidden><div class="bar"><div id="done"></div></div><p id="count"></p><h1 class="question"></h1><p id="prompt"></p>
<div class="row"><figure><img id="left" alt="left picture"><button data-choice="left">&larr; Left</button></figure>
<figure class="real"><img id="real" alt="a real photo"><figcaption>a real photo of it</figcaption></figure>
<figure><img id="right" alt="right picture"><button data-choice="right">Right &rarr;</button></figure></div>
<p style="text-align:center"><button data-choice="tie">&darr; Tie</button></p><p class="keys">Keys: left, right, down arrow for a tie,
backspace takes back the last vote. <button id="save">Download the votes so far</button></p></section>
<section id="end" hidden><h1>Thank you, that was the last one.</h1><p>Download your votes and send the file back.</p>
<p><button id="final">Download my votes</button> <button id="undo">Take back the last vote</button></p></section>"""

SCRIPT = """'use strict';
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
"""


def jpeg_url(picture, longest: int) -> str:
    """A picture, or a file of one, as a data: address: pixels alone, nothing that tells where it came from."""
    image = decode(read_bytes(picture), picture.name) if isinstance(picture, Path) else picture
    return "data:image/jpeg;base64," + base64.b64encode(encode_jpeg(shrink(image, longest), 88)).decode()


def html_page(page: str, question: str, pairs: Sequence[dict]) -> bytes:
    """pairs: {id, prompt, left, right, real?}. The one script that may run is named by its hash."""
    content = {"format": FORMAT, "version": VERSION, "page": page, "question": question, "pairs": list(pairs)}
    data = json.dumps(content, ensure_ascii=False).replace("<", "\\u003c")
    digest = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
    safe = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    head = (
        f'<meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{safe}">'
        f'<meta name="viewport" content="width=device-width"><title>{html.escape(question)}</title><style>{STYLE}</style>'
    )
    return (
        f'<!doctype html><html lang="en"><head>{head}</head><body>{BODY}'
        f'<script type="application/json" id="data">{data}</script><script>{SCRIPT}</script></body></html>'
    ).encode()
