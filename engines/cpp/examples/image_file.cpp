#include "image_file.hpp"

#include <fstream>
#include <iterator>
#include <zmask/zmask.hpp>

#ifdef ZMASK_HAS_PNG
#include <png.h>

#include <csetjmp>
#include <cstring>
#endif

namespace {

constexpr std::size_t smallest_side = 16;
constexpr std::size_t largest_side = std::size_t{1} << 14;

[[noreturn]] void refuse(const std::string& path, const std::string& what) {
  throw zmask::ImageError(path + " " + what + ".", "Give an 8-bit RGB image, PPM (P6) or PNG.");
}

void require_sides(const std::string& path, std::size_t height, std::size_t width) {
  const auto fits = [](std::size_t side) { return side >= smallest_side && side <= largest_side; };
  if (!fits(height) || !fits(width)) refuse(path, "has sides that are too small or too large");
}

// A number of a PPM header, past space and comments.
std::size_t header_number(const std::string& data, std::size_t& at, const std::string& path) {
  const auto space = [](char c) { return c == ' ' || (c >= '\t' && c <= '\r'); };
  while (at < data.size() && (space(data[at]) || data[at] == '#')) {
    if (data[at] == '#') {
      while (at < data.size() && data[at] != '\n') ++at;
    } else {
      ++at;
    }
  }
  std::size_t value = 0;
  const std::size_t start = at;
  for (; at < data.size() && data[at] >= '0' && data[at] <= '9' && at - start < 6; ++at) {
    value = value * 10 + static_cast<std::size_t>(data[at] - '0');
  }
  if (at == start) refuse(path, "has a damaged header");
  return value;
}

Picture read_ppm(const std::string& data, const std::string& path) {
  std::size_t at = 2;
  Picture picture;
  picture.width = header_number(data, at, path);
  picture.height = header_number(data, at, path);
  if (header_number(data, at, path) != 255) refuse(path, "has not 8 bits a channel");
  ++at;  // one space ends the header
  require_sides(path, picture.height, picture.width);
  const std::size_t size = picture.height * picture.width * 3;
  if (data.size() < at || data.size() - at < size) refuse(path, "is cut short");
  picture.pixels.assign(data.begin() + static_cast<std::ptrdiff_t>(at),
                        data.begin() + static_cast<std::ptrdiff_t>(at + size));
  return picture;
}

#ifdef ZMASK_HAS_PNG
struct Source {
  const std::string& data;
  std::size_t at;
};

void next_bytes(png_structp png, png_bytep into, std::size_t size) {
  auto* source = static_cast<Source*>(png_get_io_ptr(png));
  if (source->data.size() - source->at < size) png_error(png, "cut short");
  std::memcpy(into, source->data.data() + source->at, size);
  source->at += size;
}

// libpng leaves through longjmp: nothing with a destructor may begin between here and the jump.
bool decode_png(png_structp png, png_infop info, Picture& picture, std::vector<png_bytep>& rows) {
  if (setjmp(png_jmpbuf(png)) != 0) return false;  // NOLINT: libpng's way
  png_read_info(png, info);
  if (png_get_color_type(png, info) != PNG_COLOR_TYPE_RGB || png_get_bit_depth(png, info) != 8) {
    return false;
  }
  picture.height = png_get_image_height(png, info);
  picture.width = png_get_image_width(png, info);
  if (picture.height > largest_side || picture.width > largest_side) return false;
  picture.pixels.resize(picture.height * picture.width * 3);
  rows.resize(picture.height);
  for (std::size_t y = 0; y < picture.height; ++y) rows[y] = &picture.pixels[y * picture.width * 3];
  png_read_image(png, rows.data());
  png_read_end(png, nullptr);
  return true;
}

Picture read_png(const std::string& data, const std::string& path) {
  const auto quiet = [](png_structp, png_const_charp) {};
  const auto leave = [](png_structp png, png_const_charp) { png_longjmp(png, 1); };
  png_structp png = png_create_read_struct(PNG_LIBPNG_VER_STRING, nullptr, leave, quiet);
  png_infop info = png == nullptr ? nullptr : png_create_info_struct(png);
  Picture picture;
  std::vector<png_bytep> rows;
  Source source{data, 0};
  bool good = info != nullptr;
  if (good) {
    png_set_read_fn(png, &source, next_bytes);
    good = decode_png(png, info, picture, rows);
  }
  png_destroy_read_struct(&png, &info, nullptr);
  if (!good) refuse(path, "is damaged, or no 8-bit RGB image");
  require_sides(path, picture.height, picture.width);
  return picture;
}
#endif

}  // namespace

Picture read_picture(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  const std::string data((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  if (!file.good() && !file.eof()) refuse(path, "cannot be read");
  if (data.compare(0, 2, "P6") == 0) return read_ppm(data, path);
#ifdef ZMASK_HAS_PNG
  if (data.compare(0, 4, "\x89PNG") == 0) return read_png(data, path);
#endif
  refuse(path, "is no image that this example reads");
}

void write_mask(const std::string& path, const float* mask, std::size_t height, std::size_t width) {
  std::string data = "P5\n" + std::to_string(width) + " " + std::to_string(height) + "\n255\n";
  for (std::size_t i = 0; i < height * width; ++i) data.push_back(mask[i] > 0.5F ? '\xff' : '\0');
  std::ofstream file(path, std::ios::binary);
  file.write(data.data(), static_cast<std::streamsize>(data.size()));
  file.close();
  if (!file) {
    throw zmask::OutputError(path + " cannot be written.", "Choose another place for the mask.");
  }
}
