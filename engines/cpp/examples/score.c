/* Score one raw RGB frame through the C interface:
 *
 *     zmask_score BUNDLE HEIGHT WIDTH < frame.rgb
 */
#include <stdio.h>
#include <stdlib.h>
#include <zmask/zmask.h>

static int failed(int code) {
  fprintf(stderr, "Error: %s\n  Fix: %s\n", zmask_last_error(), zmask_last_fix());
  return code;
}

static int score(const zmask_engine* engine, const uint8_t* pixels, size_t height, size_t width) {
  zmask_result* result = NULL;
  zmask_output output;
  int code = zmask_engine_run_rgb8(engine, pixels, height, width, 0, NULL, &result);
  if (code == ZMASK_OK) code = zmask_result_output(result, "score", &output);
  if (code == ZMASK_OK) {
    const double value = (double)*(const float*)output.data;
    printf("%.9g %s\n", value, value > zmask_engine_threshold(engine) ? "flagged" : "clean");
  }
  if (code != ZMASK_OK) failed(code);
  zmask_result_free(result);
  return code;
}

int main(int count, char** arguments) {
  zmask_engine* engine = NULL;
  size_t height, width, size;
  uint8_t* pixels;
  int code;
  if (count != 4) {
    fprintf(stderr, "usage: zmask_score BUNDLE HEIGHT WIDTH < frame.rgb\n");
    return ZMASK_ERROR_USAGE;
  }
  height = strtoul(arguments[2], NULL, 10);
  width = strtoul(arguments[3], NULL, 10);
  if (height == 0 || width == 0 || height > 16384 || width > 16384) {
    fprintf(stderr, "a side is from 1 to 16384 pixels\n");
    return ZMASK_ERROR_USAGE;
  }
  size = height * width * 3;
  pixels = malloc(size);
  if (pixels == NULL || fread(pixels, 1, size, stdin) != size) {
    fprintf(stderr, "the frame is cut short\n");
    free(pixels);
    return ZMASK_ERROR_INPUT;
  }
  code = zmask_engine_load(arguments[1], NULL, &engine);
  code = code == ZMASK_OK ? score(engine, pixels, height, width) : failed(code);
  zmask_engine_free(engine);
  free(pixels);
  return code;
}
