// The theme's Font Awesome replaces each <i> by an <svg>; films look for their own <i>, so the icon goes inside it instead.
window.FontAwesome.config.autoReplaceSvg = "nest";
