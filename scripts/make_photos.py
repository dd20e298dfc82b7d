"""Writes candle-resnet/tests/data/photos: one tiny file for each way a photo can be stored, and `expected.json`.

`expected.json` holds per file the size and the RGB bytes (hexadecimal) that Pillow shows: `exif_transpose`, then
`convert("RGB")`. One exception: 16-bit grey, which Pillow clips at 255, is expected to keep its upper 8 bits.

    python scripts/make_photos.py candle-resnet/tests/data/photos
"""
import io
import json
import os
import struct
import sys
import zlib

import numpy as np
import PIL
from PIL import Image, ImageOps

WIDTH, HEIGHT = 20, 13
ORIENTATION = 0x0112
folder = sys.argv[1]


def ramp(channel, width=WIDTH, height=HEIGHT):
    """Smooth, and different along both axes and between channels, so that every mix-up shows."""
    y, x = np.mgrid[0:height, 0:width]
    return np.clip((20 + 10 * x, 230 - 14 * y, 40 + 5 * x + 7 * y, 255 - 6 * x - 4 * y)[channel], 0, 255).astype(np.uint8)


def stack(*channels):
    return np.stack([ramp(channel) for channel in channels], -1)


rgb = Image.fromarray(stack(0, 1, 2))
grey = Image.fromarray(ramp(2))
rgba = Image.fromarray(stack(0, 1, 2, 3))
grey_alpha = Image.merge("LA", (grey, Image.fromarray(ramp(3))))
cmyk = Image.merge("CMYK", [Image.fromarray(ramp(channel)) for channel in range(4)])
palette = rgb.quantize(32)
one_bit = Image.fromarray(ramp(2) > 110)
second = ImageOps.invert(rgb)


def png(color_type, rows, width=WIDTH, height=HEIGHT):
    """A 16-bit PNG, of which Pillow writes only the grey one."""
    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
    header = struct.pack(">IIBBBBB", width, height, 16, color_type, 0, 0, 0)
    data = b"".join(b"\0" + row.astype(">u2").tobytes() for row in rows)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(data, 9)) + chunk(b"IEND", b"")


def texture(width, height):
    """Detail down to the pixel, saturated colours and both extremes: whatever a JPEG decoder rounds otherwise, shows."""
    y, x, c = np.meshgrid(*(np.arange(n, dtype=np.uint32) for n in (height, width, 3)), indexing="ij")
    noise = (x * np.uint32(0x9E3779B1) ^ y * np.uint32(0x85EBCA77) ^ c * np.uint32(0xC2B2AE3D)) * np.uint32(0x2C1B3C6D)
    waves = 128 + 150 * np.sin(x / 5 + c) * np.cos(y / 3 - c)
    return Image.fromarray(np.where(x < width // 2, noise >> np.uint32(24), waves.clip(0, 255)).astype(np.uint8))


def jpeg(image, **options):
    return saved(image, "JPEG", **{"quality": 90, "subsampling": 0, **options})


def segments(data):
    """Marker, begin and end of each segment before the coded data."""
    at = 2
    while data[at + 1] != 0xDA:
        end = at + 2 + int.from_bytes(data[at + 2:at + 4], "big")
        yield data[at + 1], at, end
        at = end


def relabelled(data, factors, width, height):
    """The same coded data, declared with other sampling factors and another size of as many MCUs. Pillow writes few of them."""
    at = next(begin for marker, begin, _ in segments(data) if marker in (0xC0, 0xC2))
    return data[:at + 5] + struct.pack(">HH", height, width) + data[at + 9:at + 11] + bytes([factors]) + data[at + 12:]


def without_code_tables(data):
    """What a frame of motion JPEG looks like: the standard's tables are meant."""
    for _, begin, end in [segment for segment in segments(data) if segment[0] == 0xC4][::-1]:
        data = data[:begin] + data[end:]
    return data


def one_scan_each(image):
    """A sequential image whose components come one after the other: three grey images, joined below one header."""
    parts = [jpeg(channel) for channel in image.split()]
    frame = next(begin for marker, begin, _ in segments(parts[0]) if marker == 0xC0)
    header = parts[0][:frame] + b"\xff\xc0" + struct.pack(">HBHHB", 17, 8, image.height, image.width, 3)
    header += b"".join(bytes([component, 0x11, 0]) for component in (1, 2, 3))
    header += b"".join(parts[0][begin:end] for marker, begin, end in segments(parts[0]) if marker == 0xC4)
    scans = [part[part.index(b"\xff\xda"):-2] for part in parts]
    return header + b"".join(scan[:5] + bytes([n]) + scan[6:] for n, scan in enumerate(scans, 1)) + b"\xff\xd9"


def oriented(value):
    exif = Image.Exif()
    exif[ORIENTATION] = value
    return exif


def as_ycck(data):
    """The same coded data, declared as YCCK in Adobe's segment: what Photoshop writes and Pillow does not."""
    at = data.index(b"Adobe") + 11
    return data[:at] + b"\x02" + data[at + 1:]


def saved(image, format, **options):
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


wide = 257 * stack(0, 1, 2, 3).astype(np.uint16) + 100  # not a multiple of 257: rounding and truncating differ
files = {
    "grey.png": saved(grey, "PNG"),
    "grey_alpha.png": saved(grey_alpha, "PNG"),
    "rgba.png": saved(rgba, "PNG"),
    "palette.png": saved(palette, "PNG"),
    "palette_transparent.png": saved(palette, "PNG", transparency=bytes(range(0, 256, 8))),
    "palette_16_colours.png": saved(rgb.quantize(16), "PNG", bits=4),
    "rgb_transparent_colour.png": saved(rgb, "PNG", transparency=rgb.getpixel((3, 3))),
    "one_bit.png": saved(one_bit, "PNG"),
    "grey_16_bit.png": png(0, wide[..., 2]),
    "grey_alpha_16_bit.png": png(4, wide[..., 2:].reshape(HEIGHT, -1)),
    "rgb_16_bit.png": png(2, wide[..., :3].reshape(HEIGHT, -1)),
    "rgba_16_bit.png": png(6, wide.reshape(HEIGHT, -1)),
    "exif_6.png": saved(rgb, "PNG", exif=oriented(6)),
    "animated.png": saved(rgb, "PNG", save_all=True, append_images=[second]),
    "rgb.bmp": saved(rgb, "BMP"),
    "palette.bmp": saved(palette, "BMP"),
    "rgb.ppm": saved(rgb, "PPM"),
    "grey.pgm": saved(grey, "PPM"),
    "one_bit.pbm": saved(one_bit, "PPM"),
    "rgb.tiff": saved(rgb, "TIFF", compression="tiff_lzw"),
    "one_bit.tiff": saved(one_bit, "TIFF"),
    "cmyk.tiff": saved(cmyk, "TIFF", compression="tiff_lzw"),
    "exif_6.tiff": saved(rgb, "TIFF", compression="tiff_lzw", exif=oriented(6)),
    "still.gif": saved(palette, "GIF"),
    "transparent.gif": saved(palette, "GIF", transparency=palette.getpixel((4, 4))),
    "animated.gif": saved(palette, "GIF", save_all=True, append_images=[second.quantize(32)]),
    "lossless.webp": saved(rgb, "WEBP", lossless=True),
    "lossless_alpha.webp": saved(rgba, "WEBP", lossless=True, exact=True),
    "exif_6.webp": saved(rgb, "WEBP", lossless=True, exif=oriented(6)),
    "animated.webp": saved(rgb, "WEBP", lossless=True, save_all=True, append_images=[second]),
    "lossy.webp": saved(rgb, "WEBP", quality=90),
    "rgb.jpg": saved(rgb, "JPEG", quality=92, subsampling=0),
    "subsampled.jpg": saved(rgb, "JPEG", quality=92, subsampling=2),
    "progressive.jpg": saved(rgb, "JPEG", quality=92, progressive=True),
    "restarts.jpg": saved(rgb, "JPEG", quality=92, restart_marker_blocks=1),
    "not_ycbcr.jpg": saved(rgb, "JPEG", quality=92, keep_rgb=True),
    "grey.jpg": saved(grey, "JPEG", quality=92),
    "cmyk.jpg": saved(cmyk, "JPEG", quality=92),
    "ycck.jpg": as_ycck(saved(cmyk, "JPEG", quality=92)),
    "texture_full.jpg": jpeg(texture(33, 27)),
    "texture_across.jpg": jpeg(texture(35, 27), subsampling=1),
    "texture_both.jpg": jpeg(texture(35, 27), subsampling=2),
    "texture_down.jpg": relabelled(jpeg(texture(33, 23), subsampling=1), 0x12, 23, 41),
    "texture_quarter.jpg": relabelled(jpeg(texture(49, 31), subsampling=2), 0x41, 59, 29),
    "texture_full_progressive.jpg": jpeg(texture(33, 27), progressive=True, quality=97),
    "texture_both_progressive.jpg": jpeg(texture(37, 29), progressive=True, subsampling=2, restart_marker_blocks=2),
    "texture_grey_progressive.jpg": jpeg(texture(33, 27).convert("L"), progressive=True),
    "texture_coarse.jpg": jpeg(texture(34, 26), quality=3, subsampling=2),
    "texture_finest.jpg": jpeg(texture(24, 24), quality=100),
    "narrow.jpg": jpeg(texture(4, 9), subsampling=2),
    "less_narrow.jpg": jpeg(texture(5, 9), subsampling=2),
    "scan_by_scan.jpg": one_scan_each(texture(21, 19)),
    "no_code_tables.jpg": without_code_tables(jpeg(texture(21, 19), subsampling=2)),
    **{f"exif_{value}.jpg": saved(rgb, "JPEG", quality=92, subsampling=0, exif=oriented(value)) for value in range(1, 9)},
}

expected = {"pillow": PIL.__version__, "photos": {}}
for name, data in sorted(files.items()):
    with open(os.path.join(folder, name), "wb") as out:
        out.write(data)
    shown = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))
    if name == "grey_16_bit.png":
        shown = np.repeat((wide[..., 2:3] >> 8).astype(np.uint8), 3, -1)
    expected["photos"][name] = dict(width=shown.shape[1], height=shown.shape[0], rgb=shown.tobytes().hex())
with open(os.path.join(folder, "expected.json"), "w") as out:
    json.dump(expected, out, indent=0)
    out.write("\n")
