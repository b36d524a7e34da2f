"""The picture that a bundle keeps: made smaller, and written so that letters and thin lines stay what they are."""

from __future__ import annotations

import io

# A picture of fewer colors is drawn, not photographed: it may be smaller and exact without loss. Of few pixels even a photo
# has few colors, so at most one color for 16 pixels counts as flat.
FLAT_COLORS = 1 << 14
PIXELS_A_COLOR = 16


def shrink(image, longest: int, gap: float = 3.0):
    """The picture with its longest side at most `longest` pixels, aspect kept; never enlarged. gap: a smaller one is
    faster and less exact."""
    if max(image.size) <= longest:
        return image
    scale = longest / max(image.size)
    return resized(image, (max(1, round(image.width * scale)), max(1, round(image.height * scale))), gap)


def shrink_to_area(image, pixels: int):
    """The picture with at most `pixels` pixels in all, aspect kept; never enlarged. A panorama keeps its height."""
    width, height = image.size
    if width * height <= pixels:
        return image
    scale = (pixels / (width * height)) ** 0.5
    width, height = max(1, int(width * scale)), max(1, int(height * scale))
    return resized(image, (min(width, pixels), min(height, pixels)))


def resized(image, size: tuple[int, int], gap: float = 3.0, method: str = "bicubic"):
    """PIL image -> of `size` (width, height), antialiased, by "bicubic" or "bilinear". torch does the same sum as Pillow in 16-bit
    steps of several pixels at once: within two levels of it, in a fifth of its time. gap: see `shrink`."""
    from PIL import Image

    averaged_first = max(image.width / size[0], image.height / size[1]) >= 2 * gap
    if image.mode != "RGB" or averaged_first:
        return image.resize(size, Image.Resampling[method.upper()], reducing_gap=gap)
    import torch

    pixels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).view(1, image.height, image.width, 3)
    made = torch.nn.functional.interpolate(pixels.permute(0, 3, 1, 2), size[::-1], mode=method, antialias=True)
    return Image.fromarray(made[0].permute(1, 2, 0).numpy())


def encode_jpeg(image, quality: int = 92, subsampling: int = 2) -> bytes:
    """JPEG bytes of the pixels alone. subsampling: 0 keeps a color for each pixel (4:4:4), 2 one for four (4:2:0)."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality, subsampling=subsampling)
    return buffer.getvalue()


def encode_kept(image, quality: int = 92) -> bytes:
    """JPEG, or lossless WebP where the picture is flat (a logo, a sign, letters) and that is smaller."""
    data = encode_jpeg(image, quality, subsampling=0)
    if image.getcolors(max(256, min(FLAT_COLORS, image.width * image.height // PIXELS_A_COLOR))) is None:
        return data
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", lossless=True, method=4)
    return min(data, buffer.getvalue(), key=len)


def suffix_of(data: bytes) -> str:
    """The suffix of a kept picture's format."""
    return ".webp" if data.startswith(b"RIFF") else ".jpg"
