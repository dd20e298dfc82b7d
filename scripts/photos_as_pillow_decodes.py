"""Decodes photos with Pillow, turns them upright, and saves them as PNG: what is left to compare is the resize.

    python scripts/photos_as_pillow_decodes.py FOLDER OUT
"""
import os
import sys

from PIL import Image, ImageOps

folder, out = sys.argv[1:]
os.makedirs(out, exist_ok=True)
for name in sorted(os.listdir(folder)):
    stem, extension = os.path.splitext(name)
    if extension.lower() in (".jpeg", ".jpg"):
        photo = ImageOps.exif_transpose(Image.open(os.path.join(folder, name))).convert("RGB")
        photo.save(os.path.join(out, stem + ".png"), compress_level=1)
