"""A dataset written out for other programs: folders of images, or plain tar files."""
