// resize HEIGHT WIDTH NEW_HEIGHT NEW_WIDTH: raw RGB from standard input to standard output, for the
// comparison with the Python package.
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "images.hpp"

int main(int count, char** arguments) {
  if (count != 5) return 2;
  std::vector<std::size_t> sides;
  for (int i = 1; i < 5; ++i) sides.push_back(std::strtoul(arguments[i], nullptr, 10));
  std::vector<std::uint8_t> pixels(sides[0] * sides[1] * 3);
  if (std::fread(pixels.data(), 1, pixels.size(), stdin) != pixels.size()) return 4;
  const auto out = zmask::resize({pixels.data(), sides[0], sides[1]}, sides[2], sides[3]);
  return std::fwrite(out.data(), 1, out.size(), stdout) == out.size() ? 0 : 5;
}
