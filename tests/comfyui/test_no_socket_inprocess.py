"""Every node runs without a socket: none is opened, and no address is asked for."""

import socket
import sys
from types import SimpleNamespace

import pytest
import torch
from made_photos import write_photos
from no_network import Opened, no_network


def test_no_node_opens_a_socket(plugin, tmp_path, monkeypatch):
    import folder_paths

    import nodes as core

    # ComfyUI's own server is there before any node runs, and tries a socket as it is imported; here is none.
    monkeypatch.setitem(sys.modules, "server", SimpleNamespace(PromptServer=SimpleNamespace(instance=None)))
    torch.set_num_threads(1)
    monkeypatch.setattr(folder_paths, "temp_directory", str(tmp_path / "temp"))
    monkeypatch.setattr(folder_paths, "user_directory", str(tmp_path / "user"))
    monkeypatch.setattr(folder_paths, "input_directory", str(tmp_path / "input"))
    write_photos(tmp_path / "input" / "photos")
    libraries = ([str(tmp_path / "libraries")], {"folder"})
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "realrag", libraries)
    packs = tmp_path / "packs"
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "realrag_packs", ([str(packs)], {".safetensors"}))
    classes = {
        name: getattr(plugin(f"nodes.{module}"), name)
        for module, name in (
            ("retrieval.load_retriever", "LoadReflectiveRetriever"), ("retrieval.retrieve", "RetrieveRealReferences"),
            ("retrieval.edit_references", "EditReferences"), ("library.build_library", "BuildReferenceLibrary"),
            ("library.library_info", "LibraryInfo"), ("injection.load_adapter", "LoadReferenceAdapter"),
            ("injection.inject", "InjectReferences"), ("injection.save_and_load_pack", "SaveReferencePack"),
            ("injection.save_and_load_pack", "LoadReferencePack"), ("miniature.load_miniature", "LoadMiniature"),
        )
    }  # fmt: skip
    run = {
        name: lambda *given, _node=node, **named: _node.execute(*given, **named).result
        for name, node in classes.items()
    }
    shipped = plugin("nodes.folders").SHIPPED
    with no_network(monkeypatch), torch.inference_mode():
        with pytest.raises(Opened):
            socket.socket()
        for node in classes.values():
            node.define_schema()
        name = plugin("realrag.miniature.files").families_there()[0]
        adapter_name = f"{name} (shipped)"
        for node, given in {
            "LoadReflectiveRetriever": (shipped, "auto"), "LoadReferenceAdapter": (adapter_name, "automatic"), "LoadMiniature": (name,),
        }.items():  # fmt: skip
            assert classes[node].validate_inputs(given[0]) is True and classes[node].fingerprint_inputs(*given)
        retriever, vision = run["LoadReflectiveRetriever"](shipped)
        found = run["RetrieveRealReferences"](retriever, "green apples", 2, 0.0, 0.0)[0]
        picture = found.images()[0][None]
        by_picture = run["RetrieveRealReferences"](retriever, "", 1, 0.0, 0.0, image=picture)[0]
        assert len(found) == 2 and len(by_picture) == 1
        built = run["BuildReferenceLibrary"]("photos", "mine", "add these photos", "automatic", images=picture)
        assert len(run["RetrieveRealReferences"](built[0], "red", 1, 0.0, 0.0, doubt="keep")[0]) == 1
        assert run["LibraryInfo"](shipped)[0]
        found = run["EditReferences"](found, 1, 0.5, 0.0, 1.0, False)[0]
        model, clip, vae = run["LoadMiniature"](name)[:3]
        adapter = run["LoadReferenceAdapter"](adapter_name)[0]
        run["SaveReferencePack"](model, adapter, vision, "mine", references=found)
        pack = run["LoadReferencePack"]("mine.safetensors")[0]
        texts = [core.CLIPTextEncode().encode(clip, text)[0] for text in ("an apple", "")]
        for connected in (
            {"references": found, "adapter": adapter, "clip_vision": vision}, {"references": found, "vae": vae}, {"pack": pack, "adapter": adapter},
        ):  # fmt: skip
            steered = run["InjectReferences"](model, 1.0, 0.0, 1.0, **connected)[0]
            latent = {"samples": torch.zeros(1, 16, 16, 16)}
            core.KSampler().sample(steered, 3, 1, 2.0, "euler", "simple", *texts, latent)
