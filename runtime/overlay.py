"""A picture for people: the image, the heat of its anomaly map, and a contour around what rejects it."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from lineward.runtime.inspection import Inspection, Reason
from lineward.runtime.preprocessing import Frame, as_rgb8

_CONTOUR = (255, 0, 0)
_OPACITY = 0.6


def draw_overlay(frame: Frame, inspection: Inspection) -> NDArray[np.uint8]:
    """Draw heat map and contour over a frame.

    The scale is fixed by the threshold, never by the image: nothing shows up to half the threshold, and the heat is
    full at twice the threshold, so that a good part looks good. The contour runs at the threshold itself, and around
    an area that rejects the part at the level that it must be above.

    Args:
        frame: uint8 or uint16, [H, W] gray or [H, W, 3] RGB.
        inspection: its result; without an anomaly map the plain image is returned.

    Returns:
        uint8 [H, W, 3], RGB.
    """
    picture = as_rgb8(frame)
    if inspection.anomaly_map is None:
        return picture.copy()
    height, width = picture.shape[:2]
    finite = np.nan_to_num(inspection.anomaly_map, nan=2.0, posinf=2.0, neginf=2.0)
    scores = cv2.resize(finite, (width, height))
    threshold = max(inspection.threshold, 1e-6)
    heat = np.clip((scores / threshold - 0.5) / 1.5, 0, 1)
    colours = cv2.applyColorMap((heat * 255).astype(np.uint8), cv2.COLORMAP_INFERNO)[:, :, ::-1]
    opacity = (_OPACITY * np.minimum(1, 3 * heat))[:, :, np.newaxis]
    blended = np.ascontiguousarray((picture * (1 - opacity) + colours * opacity).astype(np.uint8))
    by_area = inspection.reason is Reason.AREA_ABOVE_THRESHOLD
    limit = inspection.pixel_threshold if by_area else threshold
    outlines, _ = cv2.findContours((scores > limit).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(blended, outlines, -1, _CONTOUR, max(1, round(min(height, width) / 200)))
    return blended
