"""The extensions of files that can be read as sounds: one list for every folder scan."""

SOUND_SUFFIXES = frozenset(
    (".3g2", ".3gp", ".aa3", ".aac", ".ac3", ".aif", ".aifc", ".aiff", ".amr", ".ape", ".asf")
    + (".au", ".avi", ".avr", ".awb", ".bwf", ".caf", ".dff", ".dsf", ".dts", ".dtshd", ".dv")
    + (".eac3", ".ec3", ".f4v", ".flac", ".flv", ".gxf", ".ircam", ".m2a", ".m2t", ".m2ts", ".m4a")
    + (".m4b", ".m4r", ".m4v", ".mka", ".mkv", ".mlp", ".mov", ".mp2", ".mp3", ".mp4", ".mpa")
    + (".mpc", ".mpeg", ".mpg", ".mts", ".mxf", ".nist", ".nut", ".oga", ".ogg", ".ogv", ".ogx")
    + (".oma", ".opus", ".pvf", ".qt", ".ra", ".rf64", ".rm", ".rmvb", ".shn", ".snd", ".sph")
    + (".spx", ".svx", ".tak", ".thd", ".ts", ".tta", ".vob", ".voc", ".vqf", ".w64", ".wav")
    + (".wave", ".webm", ".wma", ".wmv", ".wtv", ".wv")
)
