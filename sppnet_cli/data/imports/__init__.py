"""Import of labelled photographs: Pascal VOC, COCO and YOLO exports become a VOC set that all commands take."""
