"""A team's own drives: folders of photos with a CSV, a GPX track or EXIF positions."""
