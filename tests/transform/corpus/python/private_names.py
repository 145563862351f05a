class Vault:
    def __init__(self, secret):
        self.__secret = secret
        __local = 3
        self.total = __local

    def __hidden(self):
        return self.__secret

    def open(self):
        return self.__hidden() + self._Vault__secret


v = Vault(10)
print(v.open(), v._Vault__secret, v.total)
