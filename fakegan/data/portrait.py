"""The painter behind the built-in faces (demo.py): one random portrait; numpy only.

Everything is painted as colour and height on a canvas of twice the final size, and lit once at the end.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from fakegan.data.canvas import Canvas, Colour, Field, between, linear, tint

# sRGB colours on a line; a colour may lie anywhere along it. Skin goes from light to dark, hair from dark to light.
_SKIN = "fadecb f0c8ae e0b091 c4906e 98674c 704a36 54382b"
_HAIR = "181413 2d1f19 4e3323 704c31 966e46 c4a06c e0c89b"
_RARE_HAIR = "963e1e ac562e 6e2a26 3e5082 b0607c"
_IRIS = "3a2418 503420 6a5232 586a4a 547492 6a7882"
_BACKDROP = "d6d8d6 aab2b8 c4b298 708090 786a5c 5c7054 8c5c4c 425468 3a383c 8096ac 54423a 28322e"


@dataclass(frozen=True)
class _Person:
    skin: Colour
    hair: Colour
    femininity: float  # 0 to 1: jaw, brows, lips, hair, beard
    age: float  # 0 to 1
    smile: float  # -0.3 to 1
    width: float  # half-width of the head; its half-height is about 1


def _pose(rng: Generator, side: int) -> Canvas:
    """An empty canvas with its head coordinates: scale, offset, roll, yaw and pitch are drawn here."""
    down, across = (np.mgrid[0:side, 0:side].astype(np.float32) + 0.5) / (side / 2) - 1
    scale, roll, pitch = rng.uniform(0.63, 0.77), rng.normal(0, 0.09), rng.normal(0, 0.07)
    yaw = float(np.clip(rng.normal(0, 0.22), -0.42, 0.42))
    across, down = across - rng.normal(0, 0.05), down - rng.normal(0.05, 0.04)
    cos, sin = float(np.cos(roll)) / scale, float(np.sin(roll)) / scale
    x, y = cos * across + sin * down, cos * down - sin * across
    v = y + pitch * np.cos(np.clip(y, -1.4, 1.4))
    x = x - 0.25 * yaw * np.clip(y, 0, 1.2)  # the chin lies before the axis of the head
    angle = np.arcsin(np.clip(x / 0.95, -1, 1)) - yaw
    u = 0.95 * np.sin(np.clip(angle, -1.57, 1.57))
    relief, gloss, lit = (np.zeros_like(x) for _ in range(3))
    return Canvas(x, y, u, v, 2 / side / scale, yaw, np.zeros((3, side, side), np.float32), relief, gloss, lit)


def _person(rng: Generator) -> _Person:
    tone, age, femininity = rng.uniform(), rng.beta(1.2, 2.0), rng.beta(0.6, 0.6)
    hair = between(rng, _HAIR, 0, 1 - 0.75 * min(1.0, 1.4 * tone))
    if rng.uniform() < 0.08:
        hair = between(rng, _RARE_HAIR)
    grey = float(np.clip((age - 0.5) * 3 * rng.uniform(), 0, 0.9))
    hair += grey * (linear((176, 174, 172)) - hair)
    width = rng.normal(0.79 - 0.03 * femininity, 0.025)
    return _Person(between(rng, _SKIN, tone, tone), hair, femininity, age, rng.uniform(-0.3, 1), width)


def _backdrop(canvas: Canvas, rng: Generator) -> None:
    """Two colours in a gradient, with soft lights, foliage, or a room's verticals out of focus."""
    whole = canvas
    canvas = whole.part(slice(None, None, 2), slice(None, None, 2))  # out of focus: half the resolution will do
    one, two, three = (between(rng, _BACKDROP) for _ in range(3))
    canvas.paint(np.ones_like(canvas.x), one)
    canvas.paint(np.clip(0.5 + 0.5 * canvas.noise(rng, 2, 2) + 0.08 * canvas.noise(rng, 9, 9), 0, 1), two)
    kind = rng.choice(["studio", "lights", "leaves", "room"], p=[0.25, 0.25, 0.25, 0.25])
    if kind == "lights":
        for _ in range(rng.integers(4, 10)):
            (cx, cy), radius = rng.uniform(-1.5, 1.5, 2), rng.uniform(0.06, 0.3)
            disc = canvas.inside(np.hypot(canvas.x - cx, canvas.y - cy) - radius, rng.uniform(0.03, 0.12))
            canvas.paint(disc * rng.uniform(0.15, 0.6), tint(rng, rng.uniform(0.7, 1), rng.uniform(0, 0.6)))
    elif kind == "leaves":
        leaves = canvas.noise(rng, 6, 6) + 0.6 * canvas.noise(rng, 14, 14) + 0.35 * canvas.noise(rng, 34, 34)
        canvas.paint(np.clip(0.3 * leaves + 0.3, 0, 0.85), three)
    elif kind == "room":
        for _ in range(rng.integers(1, 4)):
            at, wide = rng.uniform(-1.5, 1.5), rng.uniform(0.05, 0.6)
            axis = canvas.x if rng.uniform() < 0.75 else canvas.y
            upright = rng.uniform(0.3, 0.8) * canvas.inside(np.abs(axis - at) - wide, 0.05)
            canvas.paint(upright, between(rng, _BACKDROP))
    whole.albedo[...] = canvas.albedo.repeat(2, 1).repeat(2, 2)


def _head_radius(canvas: Canvas, person: _Person, rng: Generator) -> Field:
    """1 on the outline of the head, less inside: a dome above the eyes, a tapered superellipse below."""
    taper = float(np.clip(rng.normal(0.17 + 0.1 * person.femininity, 0.05), 0.06, 0.36))
    jaw = float(np.clip(rng.normal(2.9 - 0.4 * person.femininity, 0.25), 2.2, 3.5))
    below = np.clip(canvas.y, 0, 1.3)
    half_width = person.width * (1 - taper * below**1.5)
    vertical = np.where(canvas.y > 0, below**jaw, np.abs(canvas.y / 1.04) ** 2.3)
    radius: Field = np.sqrt((canvas.x / half_width) ** 2 + vertical)
    return radius


def _body(canvas: Canvas, person: _Person, rng: Generator) -> None:
    """Neck, shoulders and clothes."""
    canvas = canvas.near(0, 2.3, 9, 2)
    x, y = canvas.x, canvas.y
    slim = rng.normal(0.46 - 0.1 * person.femininity, 0.02)
    neck = canvas.inside(np.abs(x) - slim - 0.3 * np.clip(y - 0.95, 0, 1) ** 2) * canvas.inside(0.4 - y)
    canvas.paint(neck, person.skin, gloss=0.1)
    canvas.shape(neck, np.sqrt(np.clip(slim**2 * 1.2 - x**2, 0, None)) * 0.8 - 0.6)
    canvas.shade(neck * 0.6 * np.exp(-(((y - 0.95) / 0.25) ** 2)))
    shoulders = canvas.inside(1.22 + 0.2 * x**2 - y + 0.02 * canvas.noise(rng, 3, 9))
    canvas.paint(shoulders, person.skin, gloss=0.1)
    canvas.shape(shoulders, 0.3 * (y - 1.2) - 0.25 * x**2 - 0.3)
    collar = rng.uniform(1.1, 1.45) - float(rng.choice([0.1, 0.6])) * np.abs(x) - 0.4 * np.clip(np.abs(x), 0, 1) ** 2
    wear = shoulders * canvas.inside(collar - y)
    cloth = tint(rng, rng.uniform(0.12, 0.95), 0.8 * rng.beta(1.2, 2))[:, None, None]
    canvas.paint(wear, cloth * (1 + 0.2 * canvas.noise(rng, 6, 12)), gloss=0.0)
    if rng.uniform() < 0.3:
        stripes = np.sin(rng.uniform(15, 40) * (y if rng.uniform() < 0.5 else x))
        canvas.paint(wear * np.clip(3 * stripes, 0, 1), cloth * 0.4 + 0.2)


@dataclass(frozen=True)
class _Hair:
    colour: Colour  # (3, H, W), strands
    strands: Field  # about standard normal
    radius: Field  # 1 on the outline
    cap: Field  # coverage of everything within the outline, down to the hair's length
    line: Field  # v above which hair covers the face


def _hair(canvas: Canvas, person: _Person, rng: Generator) -> _Hair | None:
    """Choose a style, or none; painted later, partly behind the head and partly before it."""
    if rng.uniform() < 0.2 * (person.age + 0.1) * (1 - person.femininity):
        return None
    x, y, u = canvas.x, canvas.y, canvas.u
    long, curl, part = rng.uniform() < 0.08 + 0.85 * person.femininity, rng.beta(0.7, 1.5), rng.uniform(-0.45, 0.45)
    sway = 0.04 * canvas.noise(rng, 6, 6) + 0.3 * curl * canvas.noise(rng, 12, 12)
    angle = 20 * (np.arctan2(x - 0.7 * part, y + 1.3) + sway) + 80
    knots = rng.standard_normal(160)
    knots += 0.5 * np.interp(0.4 * np.arange(160), np.arange(160), knots)  # locks as well as strands
    strands = np.interp(angle, np.arange(160), knots).astype(np.float32)
    colour = person.hair[:, None, None] * np.exp(0.26 * strands + 0.2 * canvas.noise(rng, 5, 5))

    volume = rng.uniform(0.03, 0.1) + (0.12 * long + 0.14 * curl) * rng.uniform(0.3, 1)
    side = person.width + volume * (0.8 + 0.2 * np.clip(2 * y, -1, 1)) + (0.12 * np.clip(y, 0, 2) if long else 0)
    lift = 1.02 + volume * rng.uniform(0.8, 1.6) + 0.08 * part * np.clip(u, -1, 1)
    uneven = 0.03 * canvas.noise(rng, 4, 4) + (0.008 + 0.03 * curl) * canvas.noise(rng, 16, 16) + 0.006 * strands
    radius = np.sqrt((x / side) ** 2 + (np.minimum(y + 0.05, 0) / lift) ** 2) + uneven

    length = rng.uniform(0.5, 1.8) if long else rng.uniform(-0.15, 0.25)
    fringe = (rng.uniform() < 0.3) * rng.uniform(0.5, 1)
    line = -0.62 - 0.12 * rng.beta(1, 3) * (1 + 2 * person.age) + fringe * 0.36
    line = line + rng.uniform(0.05, 0.4) * np.abs(u - part) * (1 - fringe) + 0.06 * strands * (0.4 + fringe)
    temple = np.clip(np.abs(u) / person.width, 0, 1) ** rng.uniform(4, 9)
    line = line + temple * (max(length, rng.uniform(0.05, 0.3)) - line)
    cap = canvas.inside((radius - 1) * person.width, 0.03 + 0.1 * curl)
    return _Hair(colour, strands, radius, cap * canvas.inside(y - length + 0.1 * strands * long, 0.06), line)


def _lay_hair(canvas: Canvas, hair: _Hair, alpha: Field, height: float) -> None:
    canvas.paint(alpha, hair.colour, gloss=0.3)
    bulge = 0.75 * np.sqrt(np.clip(1.1 - hair.radius**2, 0, 1))
    canvas.shape(alpha, bulge + height + 0.006 * hair.strands)


def _skull(canvas: Canvas, person: _Person, radius: Field, rng: Generator) -> Field:
    """Ears and the bare head with its relief; returns the head's coverage."""
    for side in (-1, 1):
        seen = float(np.clip(0.04 - 0.2 * side * canvas.turn, 0.0, 0.1))  # a turned head shows more of an ear
        ear = canvas.near(side * 0.95, 0.14, 0.3, 0.3)
        reach = np.hypot((ear.x - side * (0.95 * person.width + 0.3 * seen)) / (seen + 0.05), (ear.y - 0.14) / 0.22)
        cover = ear.inside((reach - 1) * 0.1)
        ear.paint(cover, person.skin * np.array([1.0, 0.86, 0.82]), gloss=0.1)
        ear.shape(cover, 0.1 * np.sqrt(np.clip(1 - reach**2, 0, 1)) - 0.05)
        ear.shade(cover * 0.4 * np.exp(-((reach / 0.6) ** 2)))
    head = canvas.inside((radius - 1) * 0.8)
    blotches = 1 + 0.04 * canvas.noise(rng, 6, 6) + 0.03 * canvas.noise(rng, 24, 24)
    canvas.paint(head, person.skin[:, None, None] * blotches, gloss=rng.uniform(0.1, 0.4))
    canvas.shape(head, 0.75 * np.sqrt(np.clip(1 - radius**3, 0, 1)))
    return head


def _flesh(canvas: Canvas, person: _Person, rng: Generator) -> None:
    """Nose, cheeks, brow ridge and eye sockets as relief; blush, freckles and folds as colour."""
    long, wide = rng.normal(0.43, 0.03), rng.normal(0.115, 0.015)
    nose = canvas.near(0, 0.25, 0.35, 0.5)
    ridge = np.exp(-((nose.u / (0.5 * wide + 0.07 * np.clip(nose.v, 0, 1))) ** 2))
    nose.relief[...] += 0.2 * ridge * np.clip((nose.v + 0.2) / (long + 0.2), 0, 1) * nose.inside(nose.v - long, 0.1)
    nose.relief[...] += 0.09 * nose.blob(0, long - 0.06, wide * 0.9, 0.08)
    nose.shade(0.3 * nose.blob(0, long + 0.07, wide, 0.045))
    for side in (-1, 1):
        nose.relief[...] += 0.05 * nose.blob(side * wide, long - 0.02, 0.06, 0.06)
        nose.shade(0.6 * nose.blob(side * wide * 0.6, long + 0.03, 0.04, 0.025))
        nose.shade((0.1 + 0.12 * person.age) * nose.blob(side * 0.17, 0.0, 0.08, 0.12))
        cheek = canvas.near(side * 0.38, 0.2, 0.5, 0.75)
        cheek.relief[...] += (0.03 + 0.03 * max(person.smile, 0)) * cheek.blob(side * 0.42, 0.32, 0.2, 0.18)
        cheek.relief[...] -= 0.07 * cheek.blob(side * 0.3, -0.01, 0.17, 0.12)
        cheek.relief[...] += 0.04 * (1.2 - 0.7 * person.femininity) * cheek.blob(side * 0.3, -0.2, 0.22, 0.07)
        fold = np.abs(cheek.u - side * (wide + 0.09 + 0.45 * (cheek.v - long)))
        crease = np.exp(-((fold / 0.04) ** 2)) * cheek.blob(side * 0.26, 0.58, 0.16, 0.13)
        cheek.shade((0.08 + 0.3 * person.age) * max(0.3, person.smile) * crease)
        flush = person.skin * np.array([1.06, 0.72, 0.7], np.float32)
        cheek.paint(rng.uniform(0.1, 0.5) * cheek.blob(side * 0.42, 0.36, 0.2, 0.16), flush)
    chin = canvas.near(0, 0.9, 0.4, 0.25)
    chin.relief[...] += 0.05 * chin.blob(0, 0.95, 0.18, 0.1)
    chin.shade(0.2 * chin.blob(0, 0.85, 0.18, 0.035))
    if rng.uniform() < 0.15:
        canvas.shade(np.clip(canvas.noise(rng, 44, 44) - 1.1, 0, 0.5) * canvas.blob(0, 0.25, 0.45, 0.2))
    brow = canvas.near(0, -0.45, 0.6, 0.35)
    brow.shade(0.14 * max(0.0, person.age - 0.3) * np.clip(np.sin(42 * brow.v), 0, 1) * brow.blob(0, -0.45, 0.4, 0.16))


def _eyes(canvas: Canvas, person: _Person, rng: Generator) -> None:
    """Both eyes with lids, lashes and brows; numbers that they share are drawn once."""
    gap, wide, tilt = rng.normal(0.33, 0.015), rng.normal(0.165, 0.01), rng.normal(0.06, 0.07)
    openness = max(0.4, rng.normal(1.1, 0.13) - 0.2 * max(person.smile, 0) - 0.15 * person.age)
    gaze, iris = rng.normal(0, 0.025), between(rng, _IRIS, 0, 1 if person.skin[1] > 0.3 else 0.35)
    makeup = person.femininity * rng.beta(1, 1.5)
    shadow = tint(rng, 0.45, 0.5) * makeup + person.skin * 0.5 * (1 - makeup)
    brow_height, brow_arch = rng.normal(0.225, 0.018), rng.normal(0.3, 0.12)
    brow_thick, brow_dark = 0.06 - 0.024 * person.femininity + rng.normal(0, 0.006), rng.uniform(0.6, 0.95)
    for side in (-1, 1):
        eye = canvas.near(side * gap, -0.1, 0.32, 0.32)
        du = (eye.u - side * gap) * side  # towards the temple
        dv = eye.v + tilt * du
        arch = 1 - (du / wide) ** 2
        upper, lower = -0.095 * openness * arch - dv, dv - 0.055 * openness * arch  # beyond the lids where positive
        almond = eye.inside(np.maximum(upper, lower)) * (arch > 0)
        eye.paint(0.7 * eye.blob(side * gap, -0.1, wide * 1.1, 0.05) * (0.3 + 0.6 * makeup), shadow)
        eye.paint(almond, linear((216, 208, 204))[:, None, None] * (0.4 + 0.6 * np.clip(arch, 0, 1)), gloss=0.0)
        ball = np.hypot(eye.u - side * gap - gaze, eye.v + 0.02)
        eye.paint(almond * eye.inside(ball - 0.084), iris[:, None, None] * (0.55 + 6 * ball))
        eye.paint(almond * eye.inside(ball - 0.04), np.full(3, 0.006))
        eye.shade(almond * np.clip(0.6 + upper / 0.05, 0, 0.55))  # the lid's shadow
        ends = np.clip(1.3 - np.abs(du) / wide, 0, 0.3) / 0.3
        eye.paint((0.7 + 0.3 * makeup) * ends * np.exp(-((upper / (0.02 + 0.012 * makeup)) ** 2)), person.hair * 0.1)
        eye.shade(0.35 * ends * np.exp(-(((lower - 0.012) / 0.022) ** 2)))
        eye.shade(0.4 * ends * np.exp(-(((upper - 0.055) / 0.02) ** 2)))
        glint = eye.inside(np.hypot(eye.u - side * gap - gaze + 0.03, eye.v + 0.05) - 0.02)
        eye.paint(glint * almond, np.full(3, 0.95))
        along = np.clip((du + 0.17) / 0.42, 0, 1)  # 0 at the nose, 1 at the temple
        middle = -brow_height - brow_arch * along * (1.15 - along) + 0.1 * along - 0.3 * tilt * du
        hairs = eye.inside(np.abs(eye.v - middle) - brow_thick * (1 - 0.75 * along**1.5), 0.03)
        eye.paint(brow_dark * hairs * eye.inside(np.abs(du - 0.04) - 0.21, 0.04), person.hair * 0.3)


def _mouth(canvas: Canvas, person: _Person, rng: Generator) -> None:
    """Lips, perhaps open over teeth."""
    centre, wide = rng.normal(0.67, 0.015), rng.normal(0.25, 0.015) + 0.06 * max(person.smile, 0)
    mouth = canvas.near(0, centre, 0.4, 0.25)
    across = mouth.u / wide
    arch = np.clip(1 - across**2, 0, 1)
    dv = mouth.v - centre + person.smile * 0.09 * (across**2 - 0.6)
    gap = 0.1 * max(person.smile - 0.35, 0) / 0.65 * (rng.uniform() < 0.75) + 0.03 * (rng.uniform() < 0.15)
    full = rng.normal(0.055 + 0.015 * person.femininity, 0.009)
    bow = 1 - 0.3 * np.exp(-((mouth.u / 0.05) ** 2))
    upper, lower = -dv - (gap * 0.4 + full * bow) * arch, dv - (gap + 1.25 * full) * arch**0.8
    lips = mouth.inside(np.maximum(upper, lower), 0.02) * np.clip(8 * arch, 0, 1)
    natural = person.skin * np.array([0.84, 0.46, 0.46])
    stick = linear((rng.uniform(130, 215), rng.uniform(20, 80), rng.uniform(40, 90)))
    makeup = rng.beta(1, 1.2) * max(0.0, person.femininity - 0.3)
    mouth.relief[...] += lips * 0.04 * (1 - (dv / 0.1) ** 2)
    mouth.paint(lips, natural + makeup * (stick - natural), gloss=0.2 + 0.4 * makeup)
    mouth.shade(lips * np.clip(0.3 - dv / 0.12, 0, 0.4))  # the upper lip faces down
    if gap < 0.01:
        line = np.exp(-((dv / 0.02) ** 2)) * mouth.inside(np.abs(across) - 1.05, 0.2)
        mouth.paint(0.8 * line, person.skin * np.array([0.25, 0.1, 0.1]))
        return
    hollow = mouth.inside(np.maximum(-dv - 0.4 * gap * arch, dv - gap * arch)) * np.clip(8 * arch, 0, 1)
    mouth.paint(hollow, np.array([0.05, 0.012, 0.01]), gloss=0.0)
    teeth = hollow * mouth.inside(dv - 0.7 * gap * arch) * mouth.inside(np.abs(across) - 0.85, 0.2)
    mouth.paint(teeth, linear((228, 220, 208))[:, None, None] * np.clip(1.05 - 0.8 * across**2, 0.2, 1))


def _beard(canvas: Canvas, person: _Person, head: Field, rng: Generator) -> None:
    """Stubble, a goatee, a full beard or nothing; painted before the mouth."""
    if person.femininity > 0.5 or rng.uniform() < 0.35:
        return
    u, v, dense = canvas.u, canvas.v, rng.beta(1, 1.2)
    cheek = 0.6 - 0.5 * np.clip(np.abs(u) / person.width, 0, 1) ** 2 + 0.03 * canvas.noise(rng, 12, 12)
    area = canvas.inside(cheek - v, 0.12)
    if rng.uniform() < 0.35:
        area *= canvas.inside(0.3 * np.hypot(u / 0.34, (v - 0.72) / 0.3) - 0.3, 0.1)
    area = np.maximum(area, canvas.inside(np.hypot(u / 0.27, (v - 0.56) / 0.06) - 1, 0.5)) * head
    grain = np.clip(0.85 + 0.25 * canvas.noise(rng, 40, 40) + 0.15 * canvas.noise(rng, 64, 64), 0, 1)
    canvas.paint(area * grain * (0.15 + 0.75 * dense), person.hair * 0.6, gloss=0.05)
    canvas.relief[...] += 0.05 * area * dense


def _glasses(canvas: Canvas, person: _Person, rng: Generator) -> None:
    wide, tall, power = rng.uniform(0.23, 0.28), rng.uniform(0.16, 0.23), float(rng.choice([2.0, 3.0, 4.0]))
    frame = tint(rng, rng.choice([0.08, 0.15, 0.6]), rng.uniform(0, 0.6))
    thick, dark = rng.uniform(0.014, 0.03), rng.uniform() < 0.25
    canvas = canvas.near(0, 0, 0.95, 0.35)
    for side in (-1, 1):
        du, dv = np.abs(canvas.u - side * 0.325) / wide, np.abs(canvas.v - 0.02) / tall
        ring = ((du**power + dv**power) ** (1 / power) - 1) * tall
        lens = canvas.inside(ring)
        canvas.paint(lens * (0.9 if dark else 0.05), np.full(3, 0.02 if dark else 0.8))
        streak = np.exp(-(((canvas.u - side * 0.3 + canvas.v * 0.8) / 0.06) ** 2))
        canvas.paint(lens * streak * 0.1, np.ones(3))
        canvas.paint(canvas.inside(np.abs(ring) - thick), frame, gloss=0.4)
        arm = canvas.inside(np.abs(canvas.v + 0.02) - thick) * canvas.inside(0.325 + wide - side * canvas.u)
        canvas.paint(arm * canvas.inside(np.abs(canvas.x) - 0.97 * person.width), frame)
    bridge = canvas.inside(np.abs(canvas.v + 0.03 - 0.3 * canvas.u**2) - thick)
    canvas.paint(bridge * canvas.inside(np.abs(canvas.u) - 0.325 + wide), frame)


def _headwear(canvas: Canvas, person: _Person, hair: _Hair | None, rng: Generator) -> None:
    """A knitted cap, or a scarf around the face."""
    x, y, u, v = canvas.x, canvas.y, canvas.u, canvas.v
    cloth = tint(rng, rng.uniform(0.15, 0.9), 0.8 * rng.beta(1.5, 2))[:, None, None]
    cloth = cloth * (1 + 0.1 * canvas.noise(rng, 20, 20))
    widest = hair.radius if hair else np.full_like(x, 9)
    if rng.uniform() < 0.7 * person.femininity:
        oval = np.hypot(u / (0.86 * person.width), (v - 0.14) / 0.86)
        outline = np.hypot(x / (person.width + 0.16 + 0.3 * np.clip(y, 0, 2)), np.minimum(y, 0) / 1.22)
        outline = np.minimum(outline, widest)
        area = canvas.inside((1 - oval) * 0.7) * canvas.inside((outline - 1) * 0.9)
        folds = 0.04 * np.sin(8 * oval + 2 * canvas.noise(rng, 4, 4))
    else:
        outline = np.minimum(np.hypot(x / (person.width + 0.1), np.minimum(y, 0) / 1.22), widest)
        edge = v + rng.uniform(0.36, 0.5) + 0.1 * u**2
        area = canvas.inside((outline - 1) * 0.9) * canvas.inside(edge)
        folds = 0.012 * np.sin(float(rng.choice([0, 45])) * u) + 0.05 * canvas.inside(-edge - 0.2)
    canvas.shade(0.4 * np.clip(1 - np.abs(area - 0.5) * 2, 0, 1))
    canvas.paint(area, cloth, gloss=0.0)
    canvas.shape(area, 0.8 * np.sqrt(np.clip(1.08 - outline**2, 0, 1)) + 0.1 + folds)


def _light(canvas: Canvas, rng: Generator) -> Colour:
    """Light the relief: wrapped diffuse key light, tinted ambient, a highlight. Linear (3, side, side)."""
    azimuth, height = rng.uniform(-1.1, 1.1), rng.uniform(0.15, 0.8)
    key = np.array([np.sin(azimuth) * np.cos(height), -np.sin(height), np.cos(azimuth) * np.cos(height)], np.float32)
    half = (key + np.array([0, 0, 1], np.float32)) / np.sqrt(2 + 2 * key[2])
    down, across = (np.clip(slope, -2.5, 2.5) for slope in np.gradient(canvas.relief, np.float32(canvas.pixel)))
    length = np.sqrt(across**2 + down**2 + 1)
    facing = (key[2] - key[0] * across - key[1] * down) / length
    mirror = np.clip((half[2] - half[0] * across - half[1] * down) / length, 0, 1) ** 16
    warm = rng.normal(0.02, 0.06)
    sun = np.array([1 + warm, 1, 1 - warm], np.float32)[:, None, None] * rng.uniform(0.75, 1.05)
    surroundings = canvas.albedo[:, : len(canvas.x) // 16].mean((1, 2)) + 0.15
    ambient = rng.uniform(0.18, 0.45) * (0.8 + 0.2 * surroundings / surroundings.max())[:, None, None]
    wrap = np.array([0.42, 0.28, 0.22], np.float32)[:, None, None]  # light scatters in skin, red the farthest
    diffuse = np.clip((facing + wrap) / (1 + wrap), 0, None) * sun
    shine = 0.2 * canvas.gloss * mirror * sun
    lit: Colour = canvas.albedo * (1 + canvas.lit * (diffuse + ambient - 1)) + canvas.lit * shine
    return lit


def portrait(rng: Generator, side: int) -> Colour:
    """One random portrait: float32 (3, side, side), linear light, 0 to about 1.5."""
    canvas, person = _pose(rng, side), _person(rng)
    _backdrop(canvas, rng)
    radius, hair = _head_radius(canvas, person, rng), _hair(canvas, person, rng)
    if hair:
        _lay_hair(canvas, hair, hair.cap, -0.5)
        canvas.shade(hair.cap * 0.4 * canvas.inside(-canvas.y, 0.8))
    _body(canvas, person, rng)
    head = _skull(canvas, person, radius, rng)
    _flesh(canvas, person, rng)
    _eyes(canvas, person, rng)
    _beard(canvas, person, head, rng)
    _mouth(canvas, person, rng)
    if hair:
        canvas.shade(head * 0.4 * canvas.inside(canvas.v - hair.line - 0.06, 0.16))
        _lay_hair(canvas, hair, hair.cap * canvas.inside(canvas.v - hair.line, 0.05), 0.1)
    if rng.uniform() < 0.1:
        _headwear(canvas, person, hair, rng)
    if rng.uniform() < 0.17:
        _glasses(canvas, person, rng)
    return _light(canvas, rng)
