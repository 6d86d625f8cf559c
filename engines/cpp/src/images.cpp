// The arithmetic is that of Pillow's resampling: coefficients in double, turned into fixed point with
// 22 bits, one rounding to 8 bits after the horizontal and one after the vertical pass.
#include "images.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <string>

namespace zmask {
namespace {

constexpr std::size_t channels = 3;
constexpr unsigned precision_bits = 32 - 8 - 2;
constexpr std::size_t max_image_side = std::size_t{1} << 16;

// What one output position takes: weights of input positions from `first` on.
struct Window {
  std::size_t first = 0;
  std::vector<std::int32_t> weights;
};

std::vector<Window> windows(std::size_t from, std::size_t to) {
  const double scale = static_cast<double>(from) / static_cast<double>(to);
  const double support = std::max(scale, 1.0);  // of the triangle; wider where the image shrinks
  const double inverse = 1.0 / support;
  std::vector<Window> found(to);
  std::vector<double> raw;
  for (std::size_t i = 0; i < to; ++i) {
    const double center = (static_cast<double>(i) + 0.5) * scale;
    const auto first = static_cast<std::ptrdiff_t>(center - support + 0.5);
    const auto last = static_cast<std::ptrdiff_t>(center + support + 0.5);
    const auto begin = static_cast<std::size_t>(std::max<std::ptrdiff_t>(first, 0));
    const auto end = std::min(static_cast<std::size_t>(last), from);
    raw.clear();
    double sum = 0.0;
    for (std::size_t x = 0; x < end - begin; ++x) {
      const double position =
          (static_cast<double>(x) + static_cast<double>(begin) - center + 0.5) * inverse;
      raw.push_back(std::max(1.0 - std::abs(position), 0.0));
      sum += raw.back();
    }
    found[i].first = begin;
    for (double weight : raw) {
      if (sum != 0.0) weight /= sum;
      found[i].weights.push_back(
          static_cast<std::int32_t>(0.5 + weight * (1U << precision_bits)));
    }
  }
  return found;
}

std::uint8_t rounded(std::int32_t sum) {
  return static_cast<std::uint8_t>(std::clamp(sum >> precision_bits, 0, 255));
}

// One pass: every output position of every line is the weighted sum of the window's input positions. A
// position holds `inner` bytes: the channels of a pixel along a row, or a whole row down the image.
void pass(const std::uint8_t* in, std::uint8_t* out, std::size_t lines, std::size_t inner,
          const std::vector<Window>& along, std::size_t in_line, std::size_t out_line) {
  for (std::size_t line = 0; line < lines; ++line) {
    for (std::size_t i = 0; i < along.size(); ++i) {
      const std::uint8_t* start = in + line * in_line + along[i].first * inner;
      std::uint8_t* target = out + line * out_line + i * inner;
      for (std::size_t e = 0; e < inner; ++e) {
        const std::uint8_t* source = start + e;
        std::int32_t sum = 1 << (precision_bits - 1);
        for (const std::int32_t weight : along[i].weights) {
          sum += *source * weight;
          source += inner;
        }
        target[e] = rounded(sum);
      }
    }
  }
}

std::string shown(std::size_t height, std::size_t width) {
  return std::to_string(width) + " x " + std::to_string(height);
}

}  // namespace

std::vector<std::uint8_t> resize(const ImageView& image, std::size_t height, std::size_t width) {
  const std::size_t h = image.height;
  const std::size_t w = image.width;
  const std::size_t stride = image.stride == 0 ? w * channels : image.stride;
  if (image.data == nullptr || h == 0 || w == 0 || h > max_image_side || w > max_image_side ||
      stride < w * channels) {
    throw ShapeError("An image of " + shown(h, w) + " pixels and rows of " +
                         std::to_string(stride) + " bytes cannot be.",
                     "Give 8-bit RGB pixels, their height and width, and the bytes of a row.");
  }
  const double stretch = (static_cast<double>(w) / static_cast<double>(h)) /
                         (static_cast<double>(width) / static_cast<double>(height));
  if (std::max(stretch, 1 / stretch) > max_stretch) {
    throw ImageError("The image is " + shown(h, w) +
                         ", whose shape is too far from the network's input " +
                         shown(height, width) + " to be stretched.",
                     "Crop the images to the input's shape.");
  }
  const std::size_t row = width * channels;
  std::vector<std::uint8_t> wide(h * row);
  if (w == width) {
    for (std::size_t y = 0; y < h; ++y) std::memcpy(&wide[y * row], image.data + y * stride, row);
  } else {
    pass(image.data, wide.data(), h, channels, windows(w, width), stride, row);
  }
  if (h == height) return wide;
  std::vector<std::uint8_t> out(height * row);
  pass(wide.data(), out.data(), 1, row, windows(h, height), 0, 0);
  return out;
}

void to_float(const std::vector<std::uint8_t>& pixels, float* planes) {
  std::array<float, 256> table{};
  for (std::size_t i = 0; i < table.size(); ++i) table[i] = static_cast<float>(i) / 255.0F;
  const std::size_t area = pixels.size() / channels;
  for (std::size_t i = 0; i < area; ++i) {
    for (std::size_t c = 0; c < channels; ++c) {
      planes[c * area + i] = table[pixels[i * channels + c]];
    }
  }
}

void check_planes(Span<const float> planes, std::size_t batch, std::size_t height, std::size_t width) {
  const std::size_t image = 3 * height * width;
  if (batch == 0 || planes.size() / image != batch || planes.size() % image != 0) {
    throw ShapeError("The engine takes float32 (N, 3, " + std::to_string(height) + ", " +
                         std::to_string(width) + "), got " + std::to_string(planes.size()) +
                         " elements for a batch of " + std::to_string(batch) + ".",
                     "Give RGB planes of that size, one image after the other.");
  }
  // Written so that NaN fails the comparison.
  if (!std::all_of(planes.begin(), planes.end(), [](float v) { return v >= 0 && v <= 1; })) {
    throw ShapeError("The image holds NaN, infinity or values outside [0, 1].",
                     "Scale 8-bit images by 1/255 and check the camera's conversion.");
  }
}

}  // namespace zmask
