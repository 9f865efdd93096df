//! Containers, exec, images, volumes, networks and events: the state machine, free of HTTP.
