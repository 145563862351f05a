class Account:
    """An account { with braces: }."""

    fee = 1
    count = 0

    def __init__(self, owner, balance=0):
        self.owner = owner
        self.balance = balance
        Account.count += 1

    def pay(self, amount):
        fee = self.fee
        if amount + fee > self.balance:
            return False
        else:
            self.balance -= amount + fee
        return True

    @property
    def rich(self):
        return self.balance > 50

    @staticmethod
    def parse(text):
        owner, balance = text.split(":")
        return Account(owner, int(balance))


class Savings(Account):
    fee = 0

    def pay(self, amount):
        paid = super().pay(amount)
        if not paid:
            print("refused", self.owner)
        return paid


a = Account.parse("ann:100")
b = Savings("bob", 10)
print(a.pay(20), a.rich, b.pay(30), b.pay(10), a.balance, b.balance, Account.count)
