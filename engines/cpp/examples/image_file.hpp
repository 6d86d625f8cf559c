// Image files for the example: binary PPM, and PNG where libpng was found; masks as PGM.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

struct Picture {
  std::size_t height = 0;
  std::size_t width = 0;
  std::vector<std::uint8_t> pixels;  // R G B, packed
};

// Read an 8-bit RGB image. Throws zmask::ImageError: no such image, or another kind of one.
Picture read_picture(const std::string& path);

// Write a mask (1 = kept, 0 = covered) as a grey image, white where kept. Throws zmask::OutputError.
void write_mask(const std::string& path, const float* mask, std::size_t height, std::size_t width);
