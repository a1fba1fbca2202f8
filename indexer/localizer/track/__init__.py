"""From a recording to a track on a map: recordings read, localized frame by frame, written and judged."""
