"""The synthetic room: a furnished room that needs no download, drawn with OpenCV.

``config`` says what to make, ``layout`` what stands where, ``textures`` how it is painted,
``light`` how bright it is, ``renderer`` what a camera sees of it, ``walk`` how the camera moves,
``sensor`` what the sensor adds, ``landmarks`` which map points a frame sees.
"""
