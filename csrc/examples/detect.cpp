// Reads the JPEG files of one or two frames, runs an exported network and prints the boxes.
//
//   detect EXPORT FRAME [PAST_FRAME]
//
// EXPORT is a folder that `python -m bevdepth_core.export --format pt2` wrote. FRAME and
// PAST_FRAME are text files with values separated by spaces: first the pose world_from_ego (12
// numbers: the first three rows of the matrix, meters), then for each camera the path of its JPEG
// file, fx fy cx cy (pixels) and the pose ego_from_camera (12 numbers). PAST_FRAME is half a
// second older than FRAME; without PAST_FRAME, the velocities are not valid. Each line of the
// output is a box in the ego frame: class, score, center x y z, length width height (m), yaw
// (rad), velocity x y (m/s).

#include <torch/csrc/inductor/aoti_package/model_package_loader.h>

#include <algorithm>
#include <fstream>
#include <iostream>
#include <iterator>
#include <sstream>

#include "images.h"

using Graph = torch::inductor::AOTIModelPackageLoader;

struct Network {
    explicit Network(const std::string& folder)
        : image_branch(folder + "/image_branch.pt2"),
          splat(folder + "/splat.pt2"),
          detection(folder + "/detection.pt2"),
          metadata(image_branch.get_metadata()) {}
    std::vector<double> numbers(const std::string& name) const {
        std::istringstream text(metadata.at(name));
        return {std::istream_iterator<double>(text), {}};
    }
    Graph image_branch, splat, detection;
    std::unordered_map<std::string, std::string> metadata;
};

struct Frame {
    // images and cameras are float32, ego_from_frustum and world_from_ego are float64.
    Tensor images, cameras, ego_from_frustum, world_from_ego;
};

Tensor pose(std::istream& file) {  // (4, 4)
    Tensor matrix = at::eye(4, at::kDouble);
    for (int i = 0; i < 12; ++i) file >> matrix.data_ptr<double>()[i];
    return matrix;
}

Frame read_frame(const std::string& name, const Network& network) {
    const auto size = network.numbers("input_size");
    std::ifstream file(name);
    Frame frame;
    frame.world_from_ego = pose(file);
    TORCH_CHECK(file, name, ": cannot read the pose world_from_ego");
    std::vector<Tensor> images, cameras, matrices;
    for (std::string jpeg; file >> jpeg;) {
        double fx, fy, cx, cy;
        file >> fx >> fy >> cx >> cy;
        const Tensor ego_from_camera = pose(file);
        TORCH_CHECK(file, name, ": cannot read the numbers of ", jpeg);
        const Image image(read_jpeg(jpeg), size[0], size[1]);
        images.push_back(image.pixels.permute({2, 0, 1}).flip(0));  // B G R
        const double scale = image.scale, left = image.left, top = image.top;
        const Tensor numbers = at::tensor(
            {fx, fy, cx, cy, scale, 0., -left, 0., scale, -top, 1., 0., 0., 1., 1.}, at::kDouble);
        cameras.push_back(at::cat({numbers, ego_from_camera.slice(0, 0, 3).flatten()}));
        Tensor camera_from_frustum = at::eye(4, at::kDouble);
        camera_from_frustum[0][0] = 1 / scale / fx;
        camera_from_frustum[0][2] = (left / scale - cx) / fx;
        camera_from_frustum[1][1] = 1 / scale / fy;
        camera_from_frustum[1][2] = (top / scale - cy) / fy;
        matrices.push_back(ego_from_camera.matmul(camera_from_frustum));
    }
    TORCH_CHECK(!images.empty(), name, ": has no cameras");
    const Tensor mean = at::tensor(network.numbers("mean"), at::kDouble).view({3, 1, 1});
    const Tensor std = at::tensor(network.numbers("std"), at::kDouble).view({3, 1, 1});
    frame.images = ((at::stack(images) - mean) / std).to(at::kFloat).contiguous();
    frame.cameras = at::stack(cameras).to(at::kFloat);
    frame.ego_from_frustum = at::stack(matrices);
    return frame;
}

// Returns the BEV map of a frame in the ego frame of the key frame. A program that processes a
// stream should store the depth and context of each frame. The image branch then need not run
// again when this frame becomes the past frame.
Tensor bev_map(Network& network, const Frame& frame, const Frame& key) {
    auto features = network.image_branch.run({frame.images, frame.cameras});  // depth, context
    const Tensor key_from_frame = at::linalg_inv(key.world_from_ego).matmul(frame.world_from_ego);
    const Tensor matrices = key_from_frame.matmul(frame.ego_from_frustum).slice(1, 0, 3);
    features.push_back(matrices.to(at::kFloat).contiguous());
    return network.splat.run(features)[0];
}

struct Box {
    std::array<float, 11> values;  // x y z length width height yaw vx vy score label
    float score() const { return values[9]; }
};

// Applies circle NMS to the candidates (tasks, 11, boxes), which are in order of descending score.
std::vector<Box> suppress(const Tensor& candidates, const Network& network) {
    const auto limits = network.numbers("nms_distance_squared");
    const size_t most = network.numbers("boxes_per_task")[0];
    const float threshold = network.numbers("score_threshold")[0];
    std::vector<Box> boxes;
    for (int64_t task = 0; task < candidates.size(0); ++task) {
        std::vector<Box> kept;
        const Tensor rows = candidates[task].t().contiguous();
        for (int64_t i = 0; i < rows.size(0) && kept.size() < most; ++i) {
            Box box;
            std::copy_n(rows[i].data_ptr<float>(), 11, box.values.begin());
            const bool near = std::any_of(kept.begin(), kept.end(), [&](const Box& other) {
                const float dx = box.values[0] - other.values[0],
                            dy = box.values[1] - other.values[1];
                return dx * dx + dy * dy <= float(limits[task]);
            });
            if (box.score() > threshold && box.score() >= 0 && !near) kept.push_back(box);
        }
        boxes.insert(boxes.end(), kept.begin(), kept.end());
    }
    std::stable_sort(boxes.begin(), boxes.end(),
                     [](const Box& a, const Box& b) { return a.score() > b.score(); });
    return boxes;
}

int run(int count, char** words) {
    TORCH_CHECK(count == 3 || count == 4, "usage: detect EXPORT FRAME [PAST_FRAME]");
    const std::string folder = words[1];
    TORCH_CHECK(
        std::ifstream(folder + "/image_branch.pt2"), folder,
        ": has no packages; write them with `python -m bevdepth_core.export --format pt2`");
    Network network(folder);
    TORCH_CHECK(network.numbers("scale_nms").empty(), "this example has no scale NMS");
    const Frame key = read_frame(words[2], network);
    std::vector<Tensor> maps{bev_map(network, key, key)};
    if (network.numbers("key_frames")[0] == 2)
        maps.push_back(count == 3 ? maps[0]
                                  : bev_map(network, read_frame(words[3], network), key));
    std::vector<std::string> classes;
    std::istringstream names(network.metadata.at("classes"));
    for (std::string name; std::getline(names, name, ',');) classes.push_back(name);
    for (const Box& box : suppress(network.detection.run(maps)[1], network)) {
        std::cout << classes.at(box.values[10]) << ' ' << box.score();
        for (int i = 0; i < 9; ++i) std::cout << ' ' << box.values[i];
        std::cout << '\n';
    }
    return 0;
}

int main(int count, char** words) try {
    return run(count, words);
} catch (const c10::Error& error) {
    std::cerr << error.what_without_backtrace() << '\n';
    return 1;
} catch (const std::exception& error) {
    std::cerr << error.what() << '\n';
    return 1;
}
