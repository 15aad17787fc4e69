"""ray_xml: extreme multi-label classification (LightDXML) as a distributed trainer on Ray."""

__version__ = "0.1.0"
