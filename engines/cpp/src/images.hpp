// From 8-bit RGB images to the engine's input, by the rule of zmask_export/data/images.py.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "zmask/zmask.hpp"

namespace zmask {

// Largest change of aspect ratio, in either direction, that resizing may bring.
inline constexpr double max_stretch = 2.0;

// An image (H, W, 3) stretched to (height, width, 3), packed: Pillow's bilinear filter, to the bit.
//
// Throws ShapeError: no pixels, or rows shorter than the width. ImageError: its aspect ratio would
// change by more than max_stretch.
std::vector<std::uint8_t> resize(const ImageView& image, std::size_t height, std::size_t width);

// Packed pixels (height, width, 3) to float32 (3, height, width) in [0, 1].
void to_float(const std::vector<std::uint8_t>& pixels, float* planes);

// Refuse what is no batch of RGB planes (batch, 3, height, width) in [0, 1].
//
// Throws ShapeError: another number of elements, none, NaN, infinity or a value outside [0, 1].
void check_planes(Span<const float> planes, std::size_t batch, std::size_t height, std::size_t width);

}  // namespace zmask
