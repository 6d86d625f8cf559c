#include "images.hpp"

#include <cmath>
#include <limits>
#include <vector>

#include "check.hpp"

using zmask::ImageView;

namespace {

using Pixels = std::vector<std::uint8_t>;

void an_image_of_the_size_stays_as_it_is() {
  Pixels pixels;
  for (int i = 0; i < 2 * 3 * 3; ++i) pixels.push_back(static_cast<std::uint8_t>(13 * i));
  CHECK(zmask::resize({pixels.data(), 2, 3}, 2, 3) == pixels);
  // Rows of ten bytes, the last of which is no pixel.
  Pixels padded = pixels;
  padded.insert(padded.begin() + 9, 99);
  CHECK(zmask::resize({padded.data(), 2, 3, 10}, 2, 3) == pixels);
}

void a_flat_image_stays_flat() {
  const Pixels pixels(31 * 47 * 3, 200);
  CHECK(zmask::resize({pixels.data(), 31, 47}, 64, 64) == Pixels(64 * 64 * 3, 200));
  CHECK(zmask::resize({pixels.data(), 31, 47}, 7, 9) == Pixels(7 * 9 * 3, 200));
}

// Worked by hand. Halved, a triangle of support 2 around 1 weighs the pixel centres 0.5, 1.5, 2.5 with
// 0.75, 0.75, 0.25 of their sum; (0.75 * 0 + 0.75 * 70 + 0.25 * 140) / 1.75 = 50.
void a_halved_row_is_the_triangles_mean() {
  const Pixels row{0, 0, 0, 70, 70, 70, 140, 140, 140, 210, 210, 210};
  CHECK(zmask::resize({row.data(), 1, 4}, 1, 2) == Pixels{50, 50, 50, 160, 160, 160});
}

void shapes_that_cannot_be_are_refused() {
  const Pixels pixels(100 * 3, 0);
  const auto resized = [&](const ImageView& view) { return [=] { zmask::resize(view, 8, 8); }; };
  CHECK(check::throws<zmask::ImageError>(resized({pixels.data(), 2, 5}), "too far"));
  CHECK(check::throws<zmask::ImageError>(resized({pixels.data(), 5, 2}), "too far"));
  CHECK(check::throws<zmask::ShapeError>(resized({nullptr, 5, 5}), "cannot be"));
  CHECK(check::throws<zmask::ShapeError>(resized({pixels.data(), 0, 5}), "cannot be"));
  CHECK(check::throws<zmask::ShapeError>(resized({pixels.data(), 5, 5, 14}), "cannot be"));
  CHECK(check::throws<zmask::ShapeError>(resized({pixels.data(), SIZE_MAX, SIZE_MAX}), "cannot be"));
  zmask::resize({pixels.data(), 2, 4}, 8, 8);  // exactly two is allowed
}

void floats_are_planes_in_0_to_1() {
  std::vector<float> planes(6);
  zmask::to_float({0, 51, 255, 1, 2, 3}, planes.data());
  CHECK(planes == std::vector<float>{0, 1 / 255.0F, 0.2F, 2 / 255.0F, 1, 3 / 255.0F});
}

void planes_that_are_no_image_are_refused() {
  const std::vector<float> planes{0, 0.5F, 1, -0.0F, 1, 0};
  const auto checked = [](std::vector<float> values, std::size_t batch) {
    return [=] { zmask::check_planes({values.data(), values.size()}, batch, 1, 2); };
  };
  checked(planes, 1)();
  constexpr float infinity = std::numeric_limits<float>::infinity();
  for (const float bad : {std::nanf(""), -std::nanf(""), infinity, -infinity, 1.0001F, -1e-30F}) {
    for (std::size_t at = 0; at < planes.size(); ++at) {
      std::vector<float> spoilt = planes;
      spoilt[at] = bad;
      CHECK(check::throws<zmask::ShapeError>(checked(spoilt, 1), "NaN, infinity or values outside"));
    }
  }
  CHECK(check::throws<zmask::ShapeError>(checked(planes, 0), "batch of 0"));
  CHECK(check::throws<zmask::ShapeError>(checked(planes, 2), "6 elements for a batch of 2"));
  CHECK(check::throws<zmask::ShapeError>(checked({}, 1), "got 0 elements"));
  CHECK(check::throws<zmask::ShapeError>(checked({0, 0, 0, 0, 0, 0, 0}, 1), "got 7 elements"));
}

}  // namespace

int main() {
  an_image_of_the_size_stays_as_it_is();
  a_flat_image_stays_flat();
  a_halved_row_is_the_triangles_mean();
  shapes_that_cannot_be_are_refused();
  floats_are_planes_in_0_to_1();
  planes_that_are_no_image_are_refused();
  return check::failures == 0 ? 0 : 1;
}
