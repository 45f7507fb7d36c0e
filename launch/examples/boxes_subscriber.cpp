// Logs class, score and position of every box of the detector.
// It needs rclcpp and vision_msgs. Add these lines to the CMakeLists.txt of your package:
//   add_executable(boxes_subscriber boxes_subscriber.cpp)
//   ament_target_dependencies(boxes_subscriber rclcpp vision_msgs)

#include <memory>

#include "rclcpp/rclcpp.hpp"
#include "vision_msgs/msg/detection3_d_array.hpp"

using vision_msgs::msg::Detection3DArray;

class BoxesSubscriber : public rclcpp::Node {
public:
    BoxesSubscriber() : Node("boxes_subscriber") {
        subscription_ = create_subscription<Detection3DArray>(
            "bevdepth_detector/detections", 10,
            [this](const Detection3DArray::ConstSharedPtr message) { log(*message); });
    }

private:
    void log(const Detection3DArray& message) const {
        for (const auto& detection : message.detections) {
            if (detection.results.empty()) continue;
            const auto& hypothesis = detection.results.front().hypothesis;
            const auto& position = detection.bbox.center.position;
            RCLCPP_INFO(get_logger(), "%s %.2f at (%.1f, %.1f) m in %s", hypothesis.class_id.c_str(),
                        hypothesis.score, position.x, position.y, message.header.frame_id.c_str());
        }
    }

    rclcpp::Subscription<Detection3DArray>::SharedPtr subscription_;
};

int main(int argc, char** argv) {
    rclcpp::init(argc, argv);
    rclcpp::spin(std::make_shared<BoxesSubscriber>());
    rclcpp::shutdown();
    return 0;
}
