/* A region of a JPEG with libjpeg-turbo alone: scaled by its transform, cropped to the columns and rows that are asked
   for. What a program in C could have; no package for Python gives access to it. Returns 0 if the file is refused. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <setjmp.h>

#include <jpeglib.h>

struct errors {
  struct jpeg_error_mgr manager;
  jmp_buf stop;
};

static void stop(j_common_ptr info) { longjmp(((struct errors*)info->err)->stop, 1); }

static void silent(j_common_ptr info) { (void)info; }

int libjpeg_region(const unsigned char* data, unsigned long length, int top, int left, int height, int width, int scale,
                   unsigned char* rgb) {
  struct jpeg_decompress_struct info;
  struct errors errors;
  unsigned char* volatile line = NULL;
  info.err = jpeg_std_error(&errors.manager);
  errors.manager.error_exit = stop;
  errors.manager.output_message = silent;
  jpeg_create_decompress(&info);
  if (setjmp(errors.stop)) {
    jpeg_destroy_decompress(&info);
    free(line);
    return 0;
  }
  jpeg_mem_src(&info, data, length);
  jpeg_read_header(&info, TRUE);
  info.out_color_space = JCS_RGB;
  info.scale_num = 1;
  info.scale_denom = (unsigned)scale;
  jpeg_start_decompress(&info);
  JDIMENSION first = (JDIMENSION)left, columns = (JDIMENSION)width;
  jpeg_crop_scanline(&info, &first, &columns);
  line = malloc(3 * (size_t)info.output_width);
  if (line == NULL) stop((j_common_ptr)&info);
  if (top > 0) jpeg_skip_scanlines(&info, (JDIMENSION)top);
  for (int y = 0; y < height; ++y) {
    JSAMPROW row = line;
    jpeg_read_scanlines(&info, &row, 1);
    memcpy(rgb + 3 * (size_t)width * y, line + 3 * ((size_t)left - first), 3 * (size_t)width);
  }
  jpeg_destroy_decompress(&info);
  free(line);
  return 1;
}
