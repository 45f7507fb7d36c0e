// Reads JPEG files and converts them to network input as Pillow does.
#pragma once

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <string>

// jpeglib.h uses FILE, but does not include <cstdio>.
#include <jpeglib.h>

using at::Tensor;

inline Tensor read_jpeg(const std::string& name) {  // (H, W, 3) RGB in float64
    FILE* file = std::fopen(name.c_str(), "rb");
    TORCH_CHECK(file, "cannot open ", name);
    jpeg_decompress_struct jpeg;
    jpeg_error_mgr errors;  // the default handler ends the program if the file is not a JPEG
    jpeg.err = jpeg_std_error(&errors);
    jpeg_create_decompress(&jpeg);
    jpeg_stdio_src(&jpeg, file);
    jpeg_read_header(&jpeg, TRUE);
    jpeg.out_color_space = JCS_RGB;
    jpeg_start_decompress(&jpeg);
    Tensor image = at::empty({jpeg.output_height, jpeg.output_width, 3}, at::kByte);
    while (jpeg.output_scanline < jpeg.output_height) {
        JSAMPROW row = image[jpeg.output_scanline].data_ptr<uint8_t>();
        jpeg_read_scanlines(&jpeg, &row, 1);
    }
    jpeg_finish_decompress(&jpeg);
    jpeg_destroy_decompress(&jpeg);
    std::fclose(file);
    return image.to(at::kDouble);
}

inline double bicubic(double x) {
    x = std::abs(x);
    if (x < 1) return (1.5 * x - 2.5) * x * x + 1;
    return x < 2 ? (((x - 5) * x + 8) * x - 4) * -0.5 : 0;
}

// Resizes `lines` (n, m) along the first axis from n to `resized` pixels, and returns `count` rows
// of the result, beginning with row `first`. This is the bicubic filter of Pillow. The weights of
// the filter are multiples of 2^-22, which float64 represents exactly.
inline Tensor resize(const Tensor& lines, int64_t resized, int64_t first, int64_t count) {
    const int64_t source = lines.size(0);
    const double step = double(source) / resized, widening = std::max(step, 1.0);
    Tensor sums = at::empty({count, lines.size(1)}, at::kDouble);
    for (int64_t i = 0; i < count; ++i) {
        const double center = (first + i + 0.5) * step;
        const auto low = std::max<int64_t>(center - 2 * widening + 0.5, 0);
        const auto high = std::min<int64_t>(center + 2 * widening + 0.5, source);
        Tensor weights = at::empty({high - low}, at::kDouble);
        double* weight = weights.data_ptr<double>();
        for (auto x = low; x < high; ++x) {
            weight[x - low] = bicubic((x - center + 0.5) * (1 / widening));
        }
        double total = 0;  // summed in the order of Pillow; another order changes the last bits
        for (auto x = low; x < high; ++x) total += weight[x - low];
        for (auto x = low; x < high; ++x) {
            weight[x - low] = std::round(weight[x - low] / total * (1 << 22));
        }
        sums[i] = weights.matmul(lines.slice(0, low, high));
    }
    return sums.add(1 << 21).div(1 << 22).floor().clamp(0, 255);
}

// An image that is scaled until it covers the input of the network. Excess rows are cropped from
// the top, and excess columns from both sides.
struct Image {
    Image(const Tensor& source, int64_t height, int64_t width) {
        const int64_t rows = source.size(0), columns = source.size(1);
        scale = std::max(double(height) / rows, double(width) / columns);
        left = std::max<int64_t>(int64_t(columns * scale) - width, 0) / 2;
        top = int64_t(rows * scale) - height;
        Tensor lines = resize(source.transpose(0, 1).flatten(1), columns * scale, left, width);
        lines = lines.view({width, rows, 3}).transpose(0, 1).flatten(1);
        pixels = resize(lines, rows * scale, top, height).view({height, width, 3});
    }
    Tensor pixels;  // (height, width, 3) RGB in float64
    double scale;
    int64_t left, top;
};
