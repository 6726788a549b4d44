"""FakeGAN: tell real faces from GAN-made ones, directly or through an autoencoder that knows only real faces."""

__version__ = "0.1.0"
