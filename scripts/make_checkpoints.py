"""Write the checkpoints that candle-resnet's tests read, each beside a safetensors twin of what it holds.

    python scripts/make_checkpoints.py [FOLDER]

Needs torch, numpy and safetensors (the committed files: torch 2.15, numpy 2.4). Values come from a formula, not from a
generator of random numbers. A legacy file names its storages by address, so those bytes differ from run to run.
"""

import argparse
import io
import os
import sys
import tarfile
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy
import torch
from safetensors.torch import save_file

DEFAULT_FOLDER = Path(__file__).parent.parent / "candle-resnet/tests/data/checkpoints"


def ramp(*shape, scale=0.25):
    """Values that f16 and bf16 hold exactly, no two neighbours alike."""
    count = int(numpy.prod(shape))
    return ((torch.arange(count) * 37 % 101 - 50) * scale).reshape(shape).float()


def network():
    return OrderedDict(
        [
            ("conv1.weight", ramp(2, 3, 3, 3)),
            ("bn1.weight", ramp(2)),
            ("bn1.running_var", ramp(2).abs()),
            ("bn1.num_batches_tracked", torch.tensor(7)),
            ("fc.weight", ramp(3, 2)),
            ("fc.bias", ramp(3)),
        ]
    )


def dtypes():
    names = "float64 float32 float16 bfloat16 int64 int32 int16 int8 uint8 bool uint16 uint32".split()
    return {name: ramp(5, scale=1).to(getattr(torch, name)) for name in names}


def widened(tensors):
    """candle has no bool, i8 or u16: the reader gives u8, i16 and i32."""
    wider = {torch.bool: torch.uint8, torch.int8: torch.int16, torch.uint16: torch.int32}
    return {name: tensor.to(wider.get(tensor.dtype, tensor.dtype)) for name, tensor in tensors.items()}


def views():
    base = ramp(6, 8)
    return {
        "whole": base,
        "transposed": base.t(),
        "middle": base[1:4, 2:7:2],
        "last": base[5, 7],
        "repeated": base[0, :1].expand(3, 4),
        "permuted": ramp(2, 3, 4, 5).permute(0, 2, 3, 1),
        "channels_last": ramp(2, 3, 2, 2).contiguous(memory_format=torch.channels_last),
        "empty": torch.zeros(0, 3),
        "empty_view": base[6:],
        "tied": base,
    }


def parameters():
    with_state = torch.nn.Parameter(ramp(3))
    with_state.note = "read by nobody"
    tagged = ramp(2, 2)
    tagged.note = "read by nobody"
    return {
        "parameter": torch.nn.Parameter(ramp(2, 3)),
        "with_state": with_state,
        "tagged": tagged,
    }


def trainer():
    """What a training script leaves: arguments, optimiser, a numpy scalar, DataParallel's prefix."""
    tensors = OrderedDict(("module." + name, tensor) for name, tensor in network().items())
    model = torch.nn.Linear(2, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model(ramp(1, 2)).sum().backward()
    optimizer.step()
    return {
        "args": argparse.Namespace(arch="resnet20", lr=0.1, milestones=[100, 150]),
        "epoch": 200,
        "best_prec1": numpy.float64(91.25),
        "best_acc1": torch.tensor(91.25),
        "device": torch.device("cpu"),
        "dtype": torch.float32,
        "shape": torch.Size([1, 2]),
        "big": 1 << 100,
        "tags": {"a", "b"},
        "optimizer": optimizer.state_dict(),
        "state_dict": tensors,
    }


class Command:
    """Unpickled by Python, this runs a shell command."""

    def __reduce__(self):
        return os.system, ("touch checkpoint-ran-code",)


# Made without a `class` statement: for one that has source code the legacy form stores that source, with its path.
Net = type("Net", (torch.nn.Module,), {"__module__": __name__})


def whole_module():
    net = Net()
    net.weight = torch.nn.Parameter(ramp(2))
    return net


class Folder:
    def __init__(self, path):
        self.path = Path(path)
        self.path.mkdir(parents=True, exist_ok=True)

    def save(self, name, value, twin=None, **options):
        """NAME_zip.pth, NAME_legacy.pth and, if given, the twin."""
        torch.save(value, self.path / f"{name}_zip.pth", **options)
        torch.save(value, self.path / f"{name}_legacy.pth", _use_new_zipfile_serialization=False, **options)
        if twin is not None:
            save_file({k: v.detach().contiguous().clone() for k, v in twin.items()}, self.path / f"{name}.safetensors")

    def rezip(self, source, target, compression=zipfile.ZIP_STORED, edit=lambda name, data: data):
        with zipfile.ZipFile(self.path / source) as old, zipfile.ZipFile(self.path / target, "w", compression) as new:
            for name in old.namelist():
                new.writestr(zipfile.ZipInfo(name), edit(name, old.read(name)), compression)


def big_endian(name, data):
    if name.endswith("/byteorder"):
        return b"big"
    if "/data/" not in name:
        return data
    width = 8 if len(data) == 8 and int.from_bytes(data, "little") == 7 else 4  # num_batches_tracked is an i64
    return numpy.frombuffer(data, dtype=f"u{width}").byteswap().tobytes()


def old_tar():
    """The form of before PyTorch 0.1.10, without content: the reader refuses it by its first block."""
    blocks = io.BytesIO()
    with tarfile.open(fileobj=blocks, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name in "storages", "tensors", "pickle":
            tar.addfile(tarfile.TarInfo(name), io.BytesIO())
    return blocks.getvalue()[: 5 * tarfile.BLOCKSIZE]


def main():
    folder = Folder(sys.argv[1] if len(sys.argv) > 1 else DEFAULT_FOLDER)
    folder.save("network", network(), network())
    folder.save("protocol5", network(), pickle_protocol=5)
    folder.save("dtypes", dtypes(), widened(dtypes()))
    folder.save("views", views(), views())
    folder.save("parameters", parameters(), parameters())
    folder.save("trainer", trainer(), trainer()["state_dict"])
    folder.save("malicious", {"state_dict": network(), "callback": Command(), "nested": [Command(), {1: Command()}]})
    folder.save("only_code", Command())
    folder.save("whole_module", whole_module())
    folder.rezip("network_zip.pth", "network_deflated.pth", zipfile.ZIP_DEFLATED)
    folder.rezip("network_zip.pth", "network_big_endian.pth", edit=big_endian)
    torch.jit.save(torch.jit.script(torch.nn.Linear(1, 1)), folder.path / "torchscript.pt")
    (folder.path / "old_tar.pth").write_bytes(old_tar())


if __name__ == "__main__":
    main()
