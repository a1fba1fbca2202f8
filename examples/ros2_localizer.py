#!/usr/bin/env python3
"""A ROS 2 node that publishes where a camera is: images in, NavSatFix and PoseWithCovarianceStamped out.

Run it where rclpy is (a sourced ROS 2) and robot-requirements.txt is installed:

    python3 ros2_localizer.py --ros-args -p pack:=place.pack -r image:=/camera/image_raw
"""

import math

import numpy as np
import rclpy
from geometry_msgs.msg import PoseWithCovarianceStamped
from rclpy.node import Node
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image, NavSatFix, NavSatStatus

import indexer
from seqdata.errors import SeqdataError

# Encodings of sensor_msgs/Image: type of a value, values a pixel, and which of them are red, green, blue.
ENCODINGS = {
    "rgb8": (np.uint8, 3, [0, 1, 2]), "bgr8": (np.uint8, 3, [2, 1, 0]), "rgba8": (np.uint8, 4, [0, 1, 2]),
    "bgra8": (np.uint8, 4, [2, 1, 0]), "mono8": (np.uint8, 1, [0]), "mono16": (np.uint16, 1, [0]),
}  # fmt: skip


def pixels(message: Image) -> np.ndarray:
    """Pixels (H, W, 3) RGB or (H, W) grey of a message, whose rows may be padded. Raises: KeyError."""
    kind, channels, order = ENCODINGS[message.encoding]
    dtype = np.dtype(kind).newbyteorder(">" if message.is_bigendian else "<")
    rows = np.frombuffer(bytes(message.data), np.uint8).reshape(message.height, message.step)
    values = rows[:, : message.width * channels * dtype.itemsize].copy().view(dtype)
    image = values.reshape(message.height, message.width, channels)[..., order]
    return image[..., 0] if channels == 1 else image


class LocalizerNode(Node):
    """Subscribes to `image`, publishes `fix` and `pose` (UTM metres of the frame `utm`) for accepted places."""

    def __init__(self) -> None:
        super().__init__("seqdata_localizer")
        pack = self.declare_parameter("pack", "place.pack").value
        self.error = float(self.declare_parameter("error_metres", 10.0).value)
        self.localizer = indexer.Localizer(pack, device=self.declare_parameter("device", "cpu").value)
        self.fix = self.create_publisher(NavSatFix, "fix", 10)
        self.pose = self.create_publisher(PoseWithCovarianceStamped, "pose", 10)
        self.create_subscription(Image, "image", self.on_image, qos_profile_sensor_data)

    def on_image(self, message: Image) -> None:
        """Push one frame; a frame that cannot be read is reported and passed over."""
        time = message.header.stamp.sec + 1e-9 * message.header.stamp.nanosec
        try:
            place = self.localizer.push(pixels(message), time)
        except (SeqdataError, KeyError, ValueError) as error:
            self.get_logger().warning(f"frame passed over: {error}")
            return
        if place is None:
            return
        fix = NavSatFix(header=message.header, latitude=place.latitude, longitude=place.longitude)
        fix.status.status = NavSatStatus.STATUS_FIX
        fix.position_covariance = [self.error**2, 0.0, 0.0, 0.0, self.error**2, 0.0, 0.0, 0.0, 1e6]
        fix.position_covariance_type = NavSatFix.COVARIANCE_TYPE_APPROXIMATED
        self.fix.publish(fix)
        pose = PoseWithCovarianceStamped(header=message.header)
        pose.header.frame_id = "utm"
        pose.pose.pose.position.x, pose.pose.pose.position.y = place.easting, place.northing
        half = math.radians(90 - (place.heading or 0.0)) / 2
        pose.pose.pose.orientation.z, pose.pose.pose.orientation.w = math.sin(half), math.cos(half)
        self.pose.publish(pose)


if __name__ == "__main__":
    rclpy.init()
    rclpy.spin(LocalizerNode())
